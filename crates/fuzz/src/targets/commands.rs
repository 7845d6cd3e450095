//! CDBs and data for the device server, from several initiators: state of one command meets the next.

use device_server::{
    DataBuffers, Device, DeviceConfig, DeviceType, LuConfig, LunAddress, NexusId, Outcome,
    PhysicalBlocks, Provisioning, Readiness, SgList, TaskContext,
};
use fastrand::Rng;
use scsi::{
    DataDirection, Sense, Status,
    task::{TaskAttribute, TaskManagementFunction},
};

use super::{Sessions, cdb};
use crate::mutate::{hex, once_in, one};

/// Commands of a session.
const COMMANDS: usize = 200;
/// Bytes of a buffer at most.
const BUFFER_MAX: usize = 6000;

/// Data that is a parameter list more often than not: zeros with some bytes set.
fn fill_data(rng: &mut Rng, data: &mut [u8]) {
    data.fill(0);
    for _ in 0..rng.u8(0..14) {
        let near = data.len().min(if once_in(rng, 3) { 600 } else { 48 });
        if near > 0 {
            let byte = if rng.bool() {
                rng.u8(..)
            } else {
                *one(rng, &[1, 2, 4, 8, 0x0a, 0x10, 0x18, 0xff])
            };
            data[rng.usize(0..near)] = byte;
        }
    }
}

fn any_config(rng: &mut Rng) -> LuConfig {
    LuConfig {
        device_type: *one(rng, &[DeviceType::Disk, DeviceType::Processor]),
        block_len: *one(rng, &[512, 4096]),
        blocks: *one(rng, &[1, 7, 64, 1000]),
        write_protect: once_in(rng, 8),
        provisioning: *one(rng, &[Provisioning::Full, Provisioning::Thin]),
        physical_blocks: PhysicalBlocks { exponent: rng.u8(0..4), lowest_aligned: 0 },
        ..LuConfig::default()
    }
}

const TARGET: u8 = 0;

/// Something other than a command happens.
fn happen(rng: &mut Rng, device: &Device, nexus: NexusId, at: LunAddress) {
    match rng.u8(0..8) {
        0 => device.nexus_lost(nexus),
        1 => device.forget_nexus(nexus),
        // Whether it can be done at all does not matter in these.
        2 => drop(device.resize_lu(at, *one(rng, &[1, 8, 100, 2000]))),
        3 => drop(device.reset_lu(at, any_config(rng))),
        4 => drop(device.set_readiness(
            at,
            *one(
                rng,
                &[
                    Readiness::Ready,
                    Readiness::Stopped,
                    Readiness::BecomingReady { progress: Some(9) },
                ],
            ),
        )),
        5 => drop(device.remove_lu(at)),
        6 => drop(device.add_lu(at, any_config(rng), || ())),
        _ => {
            let function = *one(rng, &TaskManagementFunction::ALL);
            device.task_management(nexus, at, function);
        }
    }
}

fn any_attribute(rng: &mut Rng) -> TaskAttribute {
    match once_in(rng, 30) {
        true => {
            *one(rng, &[TaskAttribute::Ordered, TaskAttribute::HeadOfQueue, TaskAttribute::Aca])
        }
        false => TaskAttribute::Simple,
    }
}

/// What holds of every outcome.
fn check(outcome: &Outcome, out_len: usize, data_in: &[u8]) {
    assert!(outcome.data_in_len <= data_in.len() as u64, "{outcome:?}");
    assert!(outcome.data_out_len <= out_len as u64, "{outcome:?}");
    assert!(outcome.data_in_len == 0 || outcome.data_out_len == 0, "{outcome:?}");
    assert_eq!(outcome.sense.is_some(), outcome.status == Status::CheckCondition, "{outcome:?}");
    if let Some(sense) = &outcome.sense {
        assert!(sense.len() <= 252 && Sense::decode(sense).is_ok(), "{outcome:?}");
        assert!(!outcome.overrun, "{outcome:?}");
    }
    let written = usize::try_from(outcome.data_in_len).expect("no more than the buffer");
    assert!(
        data_in[written..].iter().all(|byte| *byte == FILL),
        "written behind the data: {outcome:?}"
    );
}

/// What the Data-In Buffer holds before.
const FILL: u8 = 0xee;

pub(super) fn prepare() -> anyhow::Result<Sessions> {
    let (mut out, mut data_in) = (vec![0; BUFFER_MAX], vec![0; BUFFER_MAX]);
    Ok(Box::new(move |session| {
        let units = (0..2)
            .map(|lun| (LunAddress { target: TARGET, lun }, any_config(&mut session.rng)))
            .collect();
        let device = Device::new(DeviceConfig { identifier: 0, units }).expect("sound units");
        // Nobody has been told that the power is on.
        for (nexus, lun) in [(0, 0), (1, 0), (2, 0), (0, 1)] {
            let at = LunAddress { target: TARGET, lun };
            let task = TaskContext { tag: 0, attribute: TaskAttribute::Simple, cdb: &[0; 6] };
            device.execute(
                NexusId(nexus),
                at,
                &task,
                &mut DataBuffers { data_out: SgList::new(vec![]), data_in: SgList::new(vec![]) },
            );
        }
        for _ in 0..COMMANDS {
            let rng = &mut session.rng;
            let nexus = NexusId(rng.u32(0..3));
            let lun = if once_in(rng, 40) { rng.u16(..) } else { rng.u16(0..2) };
            let at = LunAddress { target: TARGET, lun };
            if once_in(rng, 100) {
                session.send(|| format!("something happens to {at:?} of {nexus:?}"));
                happen(&mut session.rng, &device, nexus, at);
                continue;
            }
            let (cdb, direction) = cdb::any(rng);
            let len = cdb::data_len(rng).min(BUFFER_MAX);
            let (out, data_in) = match direction {
                // More than it asks for: it still moves data one way.
                _ if once_in(rng, 20) => (&mut out[..len], &mut data_in[..len]),
                DataDirection::None => (&mut out[..0], &mut data_in[..0]),
                DataDirection::Out => (&mut out[..len], &mut data_in[..0]),
                DataDirection::In => (&mut out[..0], &mut data_in[..len]),
            };
            fill_data(rng, out);
            data_in.fill(FILL);
            let attribute = any_attribute(rng);
            let task = TaskContext { tag: 0, attribute, cdb: &cdb };
            session.send(|| {
                format!(
                    "{at:?} {nexus:?} {attribute:?} cdb {} out {} in {}",
                    hex(&cdb),
                    hex(out),
                    data_in.len()
                )
            });
            let out_len = out.len();
            let mut data = DataBuffers {
                data_out: SgList::from(&mut *out),
                data_in: SgList::from(&mut *data_in),
            };
            let outcome = device.execute(nexus, at, &task, &mut data);
            session.tell(|| {
                format!(
                    "  {:?} in {} out {}",
                    outcome.status, outcome.data_in_len, outcome.data_out_len
                )
            });
            check(&outcome, out_len, data_in);
        }
    }))
}
