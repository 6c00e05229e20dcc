//! What may pass by itself is tried again: stores that come back, stores that do not, and what nobody tries twice.

use super::world::Machine;
use crate::support::noise;
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::forget::job_of;
use bulla_manager::outcome::Outcome;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const BEGIN: i64 = 1_900_000_000;

fn machine(keys: &str) -> (Machine, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("src")).unwrap();
    std::fs::write(dir.path().join("src/letters"), noise("letters", 100_000)).unwrap();
    let place = |name| format!("[destination.{name}]\nurl = \"/mnt/{name}\"\nkey = {{ file = \"/k\" }}\n");
    let text = format!(
        "{}{}[job.home]\nsource = {{ paths = [\"{}/src\"] }}\nto = [\"disk\", \"vault\"]\n{keys}\n",
        place("disk"),
        place("vault"),
        dir.path().display()
    );
    let stores = ["disk", "vault"].map(|name| (name, Arc::new(Memory::new()) as Arc<dyn Backend>));
    (Machine::new(&text, BEGIN, stores.to_vec()), dir)
}

fn gone(m: &Machine, name: &str, is: bool) {
    m.stores[name].gone.store(is, Ordering::SeqCst);
}

fn copies(m: &Machine, name: &str) -> usize {
    m.repository(name).snapshots().unwrap().iter().filter(|s| job_of(s) == Some("home")).count()
}

#[test]
fn a_destination_that_comes_back_gets_its_copy() {
    for absent in ["disk", "vault"] {
        let (m, _dir) = machine("");
        gone(&m, absent, true);
        *m.meanwhile.lock().unwrap() = Some(Box::new(move |stores, _| {
            stores[absent].gone.store(false, Ordering::SeqCst);
        }));
        let report = m.run("home");
        assert_eq!((report.outcome, report.troubles.len()), (Outcome::Done, 0), "{absent}: {report:?}");
        assert_eq!((copies(&m, "disk"), copies(&m, "vault")), (1, 1));
        let waits = m.waits.lock().unwrap().clone();
        assert!(waits.len() == 1 && (120..=360).contains(&waits[0]), "{waits:?}");
        let steps = m.steps.lock().unwrap().join("\n");
        assert!(steps.contains(&format!("s: {absent}: ")) && steps.contains("no route to host"), "{steps}");
    }
}

#[test]
fn all_of_them_may_be_out_of_reach_and_the_source_is_read_once() {
    let (m, dir) =
        machine("hooks = [{ at = \"before\", command = [\"sh\", \"-c\", \"echo x >> DIR/log\"] }]");
    let text = format!("echo x >> {}/log", dir.path().display());
    let mut m = m;
    let hook = &mut m.config.jobs.get_mut("home").unwrap().value.hooks[0].value;
    hook.command[2] = text;
    for name in ["disk", "vault"] {
        gone(&m, name, true);
    }
    *m.meanwhile.lock().unwrap() = Some(Box::new(|stores, waits| {
        if waits == 2 {
            stores["vault"].gone.store(false, Ordering::SeqCst);
        }
    }));
    let report = m.run("home");
    // The vault took it at the third and last attempt; the disk had as many to get its copy from there.
    assert_eq!(report.outcome, Outcome::Partial, "{report:?}");
    assert_eq!(m.waits.lock().unwrap().len(), 4);
    assert_eq!(report.troubles.len(), 1, "{report:?}");
    gone(&m, "disk", false);
    assert_eq!((copies(&m, "disk"), copies(&m, "vault")), (0, 1));
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(log, "x\n", "what is done before a backup is done once");
}

#[test]
fn how_often_and_how_long_is_said_and_somebody_may_stop_it() {
    let (m, _dir) = machine("retry = { attempts = 5, backoff = \"10s..30s\" }");
    gone(&m, "vault", true);
    assert_eq!(m.run("home").outcome, Outcome::Partial);
    let waits = m.waits.lock().unwrap().clone();
    assert!(waits.len() == 4 && waits.iter().all(|w| (10..=30).contains(w)), "{waits:?}");
    let (m, _dir) = machine("retry = { attempts = 1 }");
    gone(&m, "vault", true);
    assert_eq!((m.run("home").outcome, m.waits.lock().unwrap().len()), (Outcome::Partial, 0));
    let (m, _dir) = machine("");
    gone(&m, "disk", true);
    gone(&m, "vault", true);
    m.stop.0.store(true, Ordering::SeqCst);
    assert_eq!((m.run("home").outcome, m.waits.lock().unwrap().len()), (Outcome::Interrupted, 0));
}

#[test]
fn what_does_not_pass_by_itself_is_not_tried_twice() {
    let (m, dir) = machine("");
    m.stores["vault"].full.store(true, Ordering::SeqCst);
    assert_eq!(m.run("home").outcome, Outcome::Capacity);
    m.stores["vault"].full.store(false, Ordering::SeqCst);
    std::fs::remove_dir_all(dir.path().join("src")).unwrap();
    assert_eq!(m.run("home").outcome, Outcome::Failed);
    assert_eq!(m.waits.lock().unwrap().len(), 0);
}
