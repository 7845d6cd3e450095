//! A ring that is closed at the moment in which its device is stopped.

use std::thread;

use harness::{Needs, UblkDevice, declare};
use rstest::rstest;
use ublk::RawQueue;

use crate::ublk::{
    modes::SINCE_7_0,
    protocol::{fetch, say},
    recorder::unscanned,
};

const TAGS: u16 = 64;
const ROUNDS: u32 = 200;
const TWO_CPUS: Needs = Needs { own_vm: true, cpus: Some(2), deadline_s: Some(120), ..SINCE_7_0 };

/// Both give back the commands that the driver keeps, and each of them is given back once: a server may end while its
/// device is stopped.
#[rstest]
fn ring_may_be_closed_while_its_device_is_stopped() {
    declare!(Contract, TWO_CPUS);
    for _ in 0..ROUNDS {
        let config = unscanned(64).queues(1, TAGS);
        let mut device = UblkDevice::add(&config.info);
        let id = device.id();
        device.control().set_params(id, &config.params).expect("SET_PARAMS");
        let mut queue = RawQueue::open(id).expect("opened");
        for tag in 0..TAGS - 1 {
            queue.begin(fetch(tag)).expect("submitted");
        }
        assert_eq!(say(&mut queue, fetch(TAGS - 1)), None);
        device.control().start(id).expect("START_DEV");
        thread::scope(|scope| {
            scope.spawn(|| drop(queue));
            device.control().stop(id).expect("STOP_DEV");
        });
        device.delete();
    }
}
