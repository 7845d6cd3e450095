//! Where data goes on its way, and where it does not.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    process,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bridge::{
    Bridge,
    log::{Event, Seen},
};
use bsg::{Access, Buffer, Errno};
use fault::Times;
use harness::{
    BlockDevice, Lun, UblkDevice,
    child::{self, Child, Parent},
    declare,
};
use rstest::rstest;
use scsi_fault::{DataIn, Effect, Rule, When};
use ublk::{DataMode, Server, uapi::param_type};

use super::{BRIDGE, Bridged, PATIENT, asked, config, errno, thin};

/// Passes the node of the unit to the server.
const NODE: &str = "/tmp/bridge-node";

/// The child: serves the unit.
fn serve(mode: DataMode) -> ! {
    let mut parent = Parent::connect();
    let node = PathBuf::from(fs::read_to_string(NODE).expect("the parent has written it"));
    let hctl = node.file_name().and_then(|name| name.to_str()).expect("a node").to_owned();
    let (disk, config) = config(&harness::ScsiDevice { hctl }, mode);
    let bridge = Bridge::new(&node, disk, PATIENT).expect("a bridge");
    let server = Server::start(&config, Arc::new(bridge)).expect("started");
    parent.tell(&server.dev_id().to_string());
    parent.until_killed()
}

/// How often these words are in the memory of a process, at an address of eight.
fn found(pid: u32, needle: [u64; 3]) -> usize {
    let memory = File::open(format!("/proc/{pid}/mem")).expect("its memory");
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its maps");
    let mut count = 0;
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').expect("a range and more");
        if !rest.starts_with('r') || rest.contains("[v") {
            continue;
        }
        let (start, end) = range.split_once('-').expect("a range");
        let parse = |text| u64::from_str_radix(text, 16).expect("maps hold hex");
        let mut bytes = vec![0; usize::try_from(parse(end) - parse(start)).expect("it fits")];
        // What cannot be read, as the memory of a device, is nobody's data.
        if memory.read_exact_at(&mut bytes, parse(start)).is_ok() {
            let words = bytes.as_chunks().0;
            let first = needle[0].to_ne_bytes();
            let places = words.iter().enumerate().filter(|(_, word)| **word == first);
            let rest = needle.map(u64::to_ne_bytes);
            count += places.filter(|(at, _)| words[*at..].starts_with(&rest)).count();
        }
    }
    count
}

/// Without a copy the server never has the data: what an application writes and reads is nowhere in the memory of the
/// server's process. With one it is.
#[rstest]
#[case::auto_buf(DataMode::AutoBuf, false)]
#[case::zero_copy(DataMode::ZeroCopy, false)]
#[case::copy(DataMode::Copy, true)]
#[case::user_copy(DataMode::UserCopy, true)]
fn data_is_in_the_server_only_if_it_is_copied(#[case] mode: DataMode, #[case] copied: bool) {
    declare!(Contract, BRIDGE);
    if child::role().is_some() {
        serve(mode);
    }
    let lun = Lun::with(thin());
    fs::write(NODE, lun.device().bsg().as_os_str().as_encoded_bytes()).expect("written");
    let mut server = Child::start("server");
    let id = server.hear().parse().expect("the number of a device");
    let device = UblkDevice::adopt(id);
    let disk = BlockDevice::open(&device.block_path(), Access::ReadWrite);
    // What no program has in it.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let nanos = u64::try_from(now & u128::from(u64::MAX)).expect("64 bits");
    for (what, reads) in [(1, false), (2, true)] {
        let needle = [nanos, u64::from(process::id()) << 32 | what, !nanos];
        let block = [&needle.map(u64::to_ne_bytes).concat()[..], &[0; 512 - 24]].concat();
        match reads {
            false => disk.write(0, &block.repeat(16)).expect("written"),
            true => {
                let other = BlockDevice::open(&lun.device().disk(), Access::ReadWrite);
                other.write(0, &block.repeat(16)).expect("written behind it");
                assert!(disk.read(0, 8192).expect("read") == block.repeat(16), "what was read");
            }
        }
        assert!(found(process::id(), needle) > 0, "the search finds what is there");
        assert_eq!(found(server.pid(), needle) > 0, copied, "reads: {reads}");
    }
    drop(disk);
    server.kill();
    device.delete();
}

/// Memory whose pages do not lie side by side: neighbours were touched in turns with another's. It begins so many bytes
/// behind the beginning of a page.
pub(crate) fn scattered(offset: usize, len: usize) -> Buffer {
    let memory = || Buffer::at_offset(offset, len).expect("memory");
    let (mut ours, mut other) = (memory(), memory());
    for at in (0..len).step_by(4096) {
        (ours[at], other[at]) = (0xcc, 1);
    }
    ours.fill(0xcc);
    ours
}

/// Reads 1 MiB of which the unit sends so little and says it was all: what it did not send is as the application had it,
/// if the data went there; a copy on its way brings zeroes. Returns how many pages such a copy was made of, and how many
/// commands it took.
#[track_caller]
fn bounced(lun: &Lun, disk: &BlockDevice, offset: usize) -> (usize, usize) {
    const LEN: usize = 1 << 20;
    let mut buffer = scattered(offset, LEN);
    let (read, entries) = asked(lun, || disk.read_into(0, &mut buffer));
    assert_eq!(read.expect("read"), LEN);
    (buffer.chunks(4096).filter(|page| page[4095] != 0xcc).count(), entries.len())
}

/// A unit that sends the first block of a read and says it was all.
fn liar() -> Rule {
    let effect = Effect::data_in(DataIn::Limit(512)).with_residual(0);
    Rule::new("liar", effect).when(When::command("READ(10)")).times(Times::Always)
}

/// block/blk-map.c:blk_rq_map_user_iov: data of a registered buffer that does not lie as the way wants it (virtio-scsi:
/// at a multiple of four) is copied. A device with the limits of the way has no such requests; one that promises more
/// has.
#[test]
fn request_that_keeps_to_the_limits_is_not_bounced() {
    declare!(Contract, BRIDGE);
    let lun = Lun::with(thin());
    lun.faults([liar()]);
    let (disk, mut config) = config(lun.device(), DataMode::AutoBuf);
    let bridged = Bridged::with(lun.device(), disk.clone(), &config, PATIENT);
    let (pages, commands) = bounced(&lun, &bridged.open(), 0);
    assert_eq!(pages, 0, "pages that were copied");
    // 126 segments, so 256 pages that lie apart are three commands.
    assert!(commands >= 3, "{commands} commands: the pages lie side by side");
    bridged.delete();
    config.params.dma.alignment = 1;
    let bridged = Bridged::with(lun.device(), disk, &config, PATIENT);
    let (pages, _) = bounced(&lun, &bridged.open(), 2);
    assert_eq!(pages, 256, "pages that were copied");
    bridged.delete();
}

/// As above: one with more segments than the way takes is copied too, but into pages that may lie apart as well, and then
/// the kernel refuses the command, EINVAL: the segments are no matter of speed alone.
#[test]
fn request_with_too_many_segments_is_bounced_or_refused() {
    declare!(Quirk, BRIDGE);
    let lun = Lun::with(thin());
    // A command that is refused does not come to the unit.
    lun.possible_faults(0, [liar()]);
    let (disk, mut config) = config(lun.device(), DataMode::AutoBuf);
    config.params.types &= !param_type::SEGMENT;
    let bridged = Bridged::with(lun.device(), disk, &config, PATIENT);
    let device = bridged.open();
    let mut buffer = scattered(0, 1 << 20);
    let (read, entries) = asked(&lun, || device.read_into(0, &mut buffer));
    match read {
        Ok(len) => {
            assert_eq!((len, entries.len()), (1 << 20, 1), "all of one command");
            assert!(buffer.chunks(4096).all(|page| page[4095] != 0xcc), "all of it copied");
        }
        Err(error) => {
            assert_eq!((errno(Err::<(), _>(error)), entries.len()), (Some(Errno::IO), 0));
            let refused = |event: &Event| event.what == Seen::Refused(Errno::INVAL);
            assert!(bridged.log.take().iter().any(refused), "why it failed");
        }
    }
    drop(device);
    bridged.delete();
}
