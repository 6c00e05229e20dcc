//! Temporary smoke.
use bulla_engine::{backend::Local, backup, env::Env, observer::Collector, repository::*, source::*};
use std::sync::Arc;
fn main() {
    let mut args = std::env::args().skip(1);
    let repo = args.next().unwrap();
    let path = args.next().unwrap();
    let mut env = Env::system("host", "root");
    env.cache = Some("/tmp/smoke-cache".into());
    let local = Local::new(&repo);
    let secret = SlotSecret::Key(bulla_engine::format::keys::Secret::new([7; 32]));
    let backend: Arc<dyn bulla_engine::backend::Backend> = if !Repository::exists(&local).unwrap() {
        local.create_layout().unwrap();
        Arc::new(local)
    } else {
        Arc::new(local)
    };
    let r = if Repository::exists(&*backend).unwrap() {
        Repository::open(backend, &secret, env).unwrap()
    } else {
        Repository::init(backend, &InitOptions::default(), &secret, env).unwrap().repository
    };
    let src = Sources::Paths(PathSources {
        paths: vec![path.into_bytes()],
        base: b"/".to_vec(),
        filter: Filter::default(),
        one_file_system: false,
        with_atime: false,
        skip: vec![],
    });
    let o = Collector::default();
    let t = std::time::Instant::now();
    let rep =
        backup::run(&r, src, &backup::BackupOptions { host: "h".into(), ..Default::default() }, &o).unwrap();
    println!("{:?}", t.elapsed());
    println!("{:#?}", rep.statistics);
    println!("{:?}", o.messages().iter().take(10).collect::<Vec<_>>());
}
