//! The barrier between rings and units.

use std::{sync::mpsc, thread};

use device_server::DeviceConfig;

use super::*;
use crate::backend::ring_with_a_command;

const ADDRESS: LunAddress = LunAddress { target: 0, lun: 0 };
const NEXUS: NexusId = NexusId(1);

fn target() -> Arc<Target> {
    let units = vec![(ADDRESS, LuConfig::default())];
    let device = Device::new(DeviceConfig { identifier: 0, units }).expect("a fine device");
    Target::new(device, Settings::new(2, 2)).expect("a thread")
}

/// Between ring and registry a request is invisible but for the lock of its queue.
#[test]
fn reset_waits_for_a_request_that_is_being_fetched() {
    let target = &*target();
    let unit = target.unit(ADDRESS).expect("the unit");
    let (done, reset_done) = mpsc::channel();
    thread::scope(|scope| {
        let fetching = target.fetching(NEXUS, FIRST_REQUEST_QUEUE + 1);
        scope.spawn(move || {
            let result = target.reset_lun(ADDRESS, &LuConfig::default());
            done.send(result.is_ok()).expect("the test waits");
        });
        let moment = Duration::from_millis(50);
        assert!(reset_done.recv_timeout(moment).is_err(), "a request is being fetched");
        let running = unit.begin(NEXUS, Some(1));
        drop(fetching);
        assert!(reset_done.recv_timeout(moment).is_err(), "it has been fetched and runs");
        drop(running);
        assert_eq!(reset_done.recv_timeout(Duration::from_secs(20)), Ok(true));
    });
}

/// The queues do hold that lock.
#[test]
fn nothing_is_fetched_while_the_locks_are_held() {
    let target = &*target();
    for queue in [CONTROL_QUEUE, FIRST_REQUEST_QUEUE] {
        let ring = &ring_with_a_command();
        thread::scope(|scope| {
            let locks: Vec<_> = (0..4).map(|queue| target.fetching(NEXUS, queue)).collect();
            let server = scope.spawn(move || target.serve(1, queue, ring));
            let (_keep, never) = mpsc::channel::<()>();
            assert!(never.recv_timeout(Duration::from_millis(50)).is_err());
            assert_eq!(ring.fetched_and_used(), (0, 0), "queue {queue}");
            drop(locks);
            server.join().expect("no panic");
            assert_eq!(ring.fetched_and_used(), (1, 1), "queue {queue}");
        });
    }
}

#[test]
fn every_queue_has_exactly_one_worker() {
    let workers = target().queues_of_workers();
    assert_eq!(workers, [vec![0, 1], vec![2], vec![3]]);
}
