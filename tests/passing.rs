//! A backend around another one says what it does differently; what it only passes on to its `inner` is named here.

/// `passes_on!(put get …)` in an `impl Backend`: these methods are those of `self.inner`.
macro_rules! passes_on {
    ($($method:ident)+) => { $($crate::passing::passes_on!(@ $method);)+ };
    (@ describe) => {
        fn describe(&self) -> bulla_engine::backend::Capabilities { self.inner.describe() }
    };
    (@ conditional_put) => {
        fn conditional_put(&self) -> bulla_engine::backend::Result<bool> { self.inner.conditional_put() }
    };
    (@ put) => {
        fn put(
            &self,
            name: &bulla_engine::format::ObjectName,
            parts: &[&[u8]],
        ) -> bulla_engine::backend::Result<bulla_engine::backend::Put> {
            self.inner.put(name, parts)
        }
    };
    (@ flush) => {
        fn flush(&self) -> bulla_engine::backend::Result<()> { self.inner.flush() }
    };
    (@ get) => {
        fn get(
            &self,
            name: &bulla_engine::format::ObjectName,
            limit: u64,
        ) -> bulla_engine::backend::Result<Vec<u8>> {
            self.inner.get(name, limit)
        }
    };
    (@ get_range) => {
        fn get_range(
            &self,
            name: &bulla_engine::format::ObjectName,
            offset: u64,
            len: usize,
        ) -> bulla_engine::backend::Result<Vec<u8>> {
            self.inner.get_range(name, offset, len)
        }
    };
    (@ list) => {
        fn list(
            &self,
            area: bulla_engine::format::Area,
        ) -> bulla_engine::backend::Result<Vec<(bulla_engine::format::ObjectName, u64)>> {
            self.inner.list(area)
        }
    };
    (@ stat) => {
        fn stat(
            &self,
            name: &bulla_engine::format::ObjectName,
        ) -> bulla_engine::backend::Result<Option<bulla_engine::backend::Stat>> {
            self.inner.stat(name)
        }
    };
    (@ delete) => {
        fn delete(&self, name: &bulla_engine::format::ObjectName) -> bulla_engine::backend::Result<()> {
            self.inner.delete(name)
        }
    };
    (@ heal) => {
        fn heal(
            &self,
            name: &bulla_engine::format::ObjectName,
            parts: &[&[u8]],
        ) -> bulla_engine::backend::Result<()> {
            self.inner.heal(name, parts)
        }
    };
}
pub(crate) use passes_on;
