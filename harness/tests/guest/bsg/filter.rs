//! The opcode filter for tasks without CAP_SYS_RAWIO (drivers/scsi/scsi_ioctl.c:scsi_cmd_allowed).

use std::borrow::Cow;

use bsg::{Access, Errno, Passthrough, Request, SgIoctl};
use harness::{
    Child, Feature, Lun, Needs, ScsiDevice,
    assert::assert_good,
    child::{self, Parent},
    declare, privilege,
};
use rstest::rstest;
use rustix::thread::{CapabilitySet, capabilities};

use super::{
    cdb::{self, Size},
    ways::{Way, execute},
};

/// INQUIRY, which any descriptor may send.
fn inquiry() -> Request {
    Request::new(&[0x12, 0, 0, 0, 36, 0]).data_in(36)
}

/// WRITE(10), which needs a writable descriptor.
fn write_10() -> Request {
    Request::new(&cdb::write(Size::Ten, 0, 1)).data_out(&cdb::pattern(0, 1, 1))
}

/// SYNCHRONIZE CACHE(16), which no descriptor may send.
fn synchronize_cache_16() -> Request {
    Request::new(&[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

#[track_caller]
fn assert_eperm(way: &mut dyn Passthrough, request: Request) {
    let refusal = way.execute(request).expect_err("the filter refuses");
    assert_eq!(refusal.errno(), Some(Errno::PERM), "{refusal}");
}

/// The capability is looked at when a command is sent, not when the node was opened: 12h is on the
/// list for every descriptor, 2Ah on the list for writable ones, 91h on none. What is refused never
/// reaches the device.
#[rstest]
#[case::read_only(Access::ReadOnly)]
#[case::read_write(Access::ReadWrite)]
fn descriptor_opened_before_dropping_sys_rawio_is_filtered(
    #[case] access: Access,
    #[values(Way::SgIoV4, Way::UringCmd)] way: Way,
) {
    declare!(Contract);
    let lun = Lun::fresh();
    let mut way = way.open_for(lun.device(), access);
    // With the capability even a read-only descriptor sends anything.
    for request in [inquiry(), write_10(), synchronize_cache_16()] {
        assert_good(&execute(&mut *way, request));
    }
    let seen = lun.journal().entries.len();

    privilege::drop_sys_rawio();
    assert_good(&execute(&mut *way, inquiry()));
    match access {
        Access::ReadOnly => assert_eperm(&mut *way, write_10()),
        Access::ReadWrite => assert_good(&execute(&mut *way, write_10())),
    }
    assert_eperm(&mut *way, synchronize_cache_16());

    let entries = lun.journal().entries;
    let opcodes: Vec<&str> = entries[seen..].iter().map(|entry| &entry.cdb[..2]).collect();
    match access {
        Access::ReadOnly => assert_eq!(opcodes, ["12"]),
        Access::ReadWrite => assert_eq!(opcodes, ["12", "2a"]),
    }
}

/// drivers/scsi/sg.c:sg_ioctl_common hands the filter only what comes over a read-only descriptor: a
/// writable sg node sends any opcode, where bsg refuses it.
#[rstest]
fn writable_sg_node_is_not_filtered() {
    declare!(Quirk);
    let lun = Lun::fresh();
    let mut writable = Way::SgV3.open_for(lun.device(), Access::ReadWrite);
    let mut read_only = Way::SgV3.open_for(lun.device(), Access::ReadOnly);
    privilege::drop_sys_rawio();
    assert_good(&execute(&mut *writable, synchronize_cache_16()));
    assert_good(&execute(&mut *read_only, inquiry()));
    assert_eperm(&mut *read_only, write_10());
}

/// drivers/scsi/scsi_bsg.c: the filter comes before the data buffer is looked at, and after the CDB is
/// copied: a bad data address does not show in a command that is not allowed.
#[rstest]
fn filter_comes_before_the_data_address() {
    declare!(Accident);
    let lun = Lun::fresh();
    let bsg = super::ways::sg_io_v4(lun.device(), Access::ReadOnly);
    privilege::drop_sys_rawio();
    let refused = |request, cdb: bool| {
        let mut frame = bsg::V4Frame::from(request);
        frame.dout = bsg::Pointer::Unmapped;
        if cdb {
            frame.request = bsg::Pointer::Unmapped;
        }
        bsg.sg_io(&mut frame)
    };
    assert_eq!(refused(write_10(), false), Err(Errno::PERM));
    assert_eq!(refused(write_10(), true), Err(Errno::FAULT));
}

const USER_NAMESPACE: Needs = Needs {
    features: Cow::Borrowed(&[
        Feature::KernelAtLeast(7, 1),
        Feature::Config(Cow::Borrowed("CONFIG_USER_NS")),
    ]),
    ..Needs::DEFAULT
};

/// The child: root of a namespace of its own, with every capability there. Its descriptors are its own.
fn filtered(hctl: String) {
    let mut parent = Parent::connect();
    let sets = capabilities(None).expect("a thread can see its capabilities");
    let needed = CapabilitySet::SYS_RAWIO | CapabilitySet::SYS_ADMIN;
    assert!(sets.effective.contains(needed), "{sets:?}");
    let device = ScsiDevice { hctl };
    for access in [Access::ReadOnly, Access::ReadWrite] {
        for way in [Way::SgIoV4, Way::UringCmd] {
            let mut way = way.open_for(&device, access);
            assert_good(&execute(&mut *way, inquiry()));
            match access {
                Access::ReadOnly => assert_eperm(&mut *way, write_10()),
                Access::ReadWrite => assert_good(&execute(&mut *way, write_10())),
            }
            assert_eperm(&mut *way, synchronize_cache_16());
        }
    }
    let sg = SgIoctl::open(device.sg(), Access::ReadWrite).expect("the node opens");
    assert_eq!(sg.reset_logical_unit(), Err(Errno::ACCESS));
    parent.tell("filtered");
}

/// drivers/scsi/scsi_ioctl.c:scsi_cmd_allowed asks for the capability in the first user namespace (`capable`), so nobody
/// gets it by a namespace of one's own. Nor does such a task reset a unit (scsi_error.c:scsi_ioctl_reset).
#[rstest]
fn root_of_another_user_namespace_is_filtered() {
    declare!(Contract, USER_NAMESPACE);
    if let Some(hctl) = child::role() {
        return filtered(hctl);
    }
    let lun = Lun::fresh();
    let mut child = Child::start_in_a_user_namespace(&lun.device().hctl);
    assert_eq!(child.hear(), "filtered");
    let page = lun.journal();
    let seen: Vec<&str> = page.entries.iter().map(|entry| &entry.cdb[..2]).collect();
    assert_eq!(seen, ["12", "12", "12", "2a", "12", "2a"]);
    assert_eq!(page.task_management, []);
}
