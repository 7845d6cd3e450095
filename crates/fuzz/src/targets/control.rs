//! Lines of control clients.

use std::{num::NonZeroU32, path::Path, time::Duration};

use control::{
    CONTROL_VERSION, Command, Event, Faults, LunAddress, LunSpec, Medium, Provisioning, Readiness,
    Request,
};
use device_server::{Device, DeviceConfig, LuConfig};
use fastrand::Rng;
use vhost_user_scsi::{
    control_server::Conversation,
    target::{Settings, Target},
};

use super::{
    Sessions,
    corpus::{self, WORDS},
};
use crate::mutate::{self, number, once_in, one};

/// Lines of a session.
const LINES: usize = 200;
/// There is nothing to wait for.
const WAIT_LIMIT: Duration = Duration::from_millis(100);

type Rules = Vec<Vec<scsi_fault::Rule>>;

fn address(rng: &mut Rng) -> LunAddress {
    match once_in(rng, 20) {
        true => LunAddress { target: rng.u8(..), lun: rng.u16(..) },
        false => LunAddress { target: rng.u8(0..2), lun: rng.u16(0..3) },
    }
}

fn spec(rng: &mut Rng) -> LunSpec {
    let blocks = if once_in(rng, 10) { number(rng) } else { rng.u64(1..100) };
    let provisioning = *one(rng, &[Provisioning::Full, Provisioning::Thin]);
    LunSpec {
        blocks,
        block_len: *one(rng, &[512, 4096, 512, 513]),
        provisioning,
        task_set_max: NonZeroU32::new(rng.u32(0..3)),
        ..LunSpec::default()
    }
}

fn command(rng: &mut Rng, rules: &Rules) -> Command {
    let address = address(rng);
    let silent = rng.bool();
    match rng.u8(0..14) {
        0 => Command::ResetLun { address, spec: spec(rng) },
        1 if silent => Command::AllFaults {
            faults: Faults { seed: rng.u64(..), rules: one(rng, rules).clone() },
        },
        1 | 2 => Command::Faults {
            address,
            faults: Faults { seed: rng.u64(..), rules: one(rng, rules).clone() },
        },
        3 => Command::Release {
            address,
            order: rng.bool().then(|| vec![rng.u32(0..3); rng.usize(0..4)]),
        },
        4 => Command::Plug { address, spec: spec(rng), silent },
        5 => Command::Unplug { address, silent },
        6 => Command::Resize { address, blocks: number(rng), silent },
        7 => {
            let sense =
                (*one(rng, &["MODE PARAMETERS CHANGED", "POWER ON OCCURRED", "NO SUCH", ""]))
                    .to_owned();
            Command::UnitAttention { address, nexus: rng.bool().then(|| rng.u32(..)), sense }
        }
        8 => Command::Readiness {
            address,
            readiness: Readiness::BecomingReady { progress: Some(rng.u16(..)) },
        },
        9 => Command::Event {
            address,
            event: Event::ParameterChanged { asc: rng.u8(..), ascq: rng.u8(..) },
        },
        10 => Command::AbortHeld { address },
        11 => Command::Journal { address },
        12 => Command::Statistics,
        _ => {
            Command::Hello { version: if once_in(rng, 4) { rng.u32(..) } else { CONTROL_VERSION } }
        }
    }
}

/// Whether it names a file that is not to be made. The target does what it is told.
fn makes_a_file(line: &[u8]) -> bool {
    let Ok(Request {
        command: Command::ResetLun { spec, .. } | Command::Plug { spec, .. }, ..
    }) = serde_json::from_slice(line)
    else {
        return false;
    };
    matches!(spec.medium, Medium::File { path } if path != Path::new("/dev/null"))
}

fn line(rng: &mut Rng, rules: &Rules) -> Vec<u8> {
    let request = Request { id: rng.u64(..), command: command(rng, rules) };
    let mut line = serde_json::to_vec(&request).expect("requests are JSON");
    if once_in(rng, 3) {
        let times = rng.usize(1..5);
        mutate::text(rng, &mut line, WORDS, times);
    }
    if makes_a_file(&line) { Vec::new() } else { line }
}

pub(super) fn prepare() -> anyhow::Result<Sessions> {
    let rules = corpus::rules()?;
    Ok(Box::new(move |session| {
        let unit = |lun| {
            (
                device_server::LunAddress { target: 0, lun },
                LuConfig { blocks: 64, ..LuConfig::default() },
            )
        };
        let config = DeviceConfig { identifier: 0, units: (0..2).map(unit).collect() };
        let device = Device::new(config).expect("sound units");
        let target =
            Target::new(device, Settings { wait_limit: WAIT_LIMIT, ..Settings::new(1, 1) })
                .expect("a thread");
        let mut conversation = Conversation::new(&target);
        for _ in 0..LINES {
            let line = line(&mut session.rng, &rules);
            session.send(|| String::from_utf8_lossy(&line).into_owned());
            let response = conversation.respond(&line);
            serde_json::to_vec(&response).expect("responses are JSON");
            // What is refused because it cannot be read has no id.
            if let Ok(Request { id, .. }) = serde_json::from_slice(&line) {
                assert_eq!(response.id, id);
            }
        }
    }))
}
