//! Faults told as one timeline: what the application asked and got, what the server saw, what the target did.
//! `cargo xtask demo` shows them.

use std::io;

use bridge::log::name;
use bsg::Errno;
use fault::Times;
use guest_protocol::told;
use harness::{BlockDevice, Lun, Timeline, declare, timeline::without_time};
use rstest::rstest;
use scsi_fault::{DataIn, Effect, Rule, Sense, When};
use ublk::DataMode;

use super::{BLOCK, BRIDGE, Bridged, asked, thin};

/// What the application does.
#[derive(Clone, Copy)]
enum Deed {
    Reads,
    Writes,
}

impl Deed {
    fn words(self) -> &'static str {
        match self {
            Deed::Reads => "reads 8 blocks at 96",
            Deed::Writes => "writes 8 blocks at 96",
        }
    }

    fn by(self, disk: &BlockDevice) -> io::Result<()> {
        match self {
            Deed::Reads => disk.read(96 * 512, 8 * BLOCK).map(drop),
            Deed::Writes => disk.write(96 * 512, &[7; 8 * BLOCK]),
        }
    }
}

/// A line of the timeline, behind the time.
fn line(who: &str, words: &str) -> String {
    format!("{who:<11}  {words}")
}

#[expect(clippy::print_stdout, reason = "the timeline is the output")]
fn tell(lines: &[String]) {
    for line in lines {
        println!("{}", told::line(line));
    }
}

/// Every line is there, each at its place; that the target's lie between those of the server's that they answer is what
/// makes it one clock.
#[rstest]
#[case::bad_block(
    "bad block",
    Deed::Reads,
    Effect::sense(Sense::named("UNRECOVERED READ ERROR").information(99)).executed(),
    Times::Always,
    &[
        ("server", "Read, 8 sectors at 96"),
        ("server", "sends READ(10)"),
        ("target", "READ(10), 8 blocks at 96: CHECK CONDITION, 3/11/00 UNRECOVERED READ ERROR  (fault: bad block)"),
        ("server", "CHECK CONDITION, 3/11/00 UNRECOVERED READ ERROR: fails with ENODATA behind 1536 good bytes"),
        ("server", "commits ENODATA"),
    ],
    "gets ENODATA"
)]
#[case::full_pool(
    "full pool",
    Deed::Writes,
    Effect::sense(Sense::codes(7, 0x27, 0x07)),
    Times::Once,
    &[
        ("server", "Write, 8 sectors at 96"),
        ("server", "sends WRITE(10)"),
        ("target", "WRITE(10), 8 blocks at 96: CHECK CONDITION, 7/27/07 SPACE ALLOCATION FAILED WRITE PROTECT, 4096 bytes missing  (fault: full pool)"),
        ("server", "CHECK CONDITION, 7/27/07 SPACE ALLOCATION FAILED WRITE PROTECT, 4096 bytes missing: fails with ENOSPC"),
        ("server", "commits ENOSPC"),
    ],
    "gets ENOSPC"
)]
#[case::reserved(
    "reserved",
    Deed::Writes,
    Effect::status("RESERVATION CONFLICT"),
    Times::Once,
    &[
        ("server", "Write, 8 sectors at 96"),
        ("server", "sends WRITE(10)"),
        ("target", "WRITE(10), 8 blocks at 96: RESERVATION CONFLICT, 4096 bytes missing  (fault: reserved)"),
        ("server", "RESERVATION CONFLICT, 4096 bytes missing: fails with EBADE"),
        ("server", "commits EBADE"),
    ],
    "gets EBADE"
)]
#[case::power_cut(
    "power cut",
    Deed::Reads,
    Effect::sense(Sense::codes(6, 0x29, 0)),
    Times::Once,
    &[
        ("server", "Read, 8 sectors at 96"),
        ("server", "sends READ(10)"),
        ("target", "READ(10), 8 blocks at 96: CHECK CONDITION, 6/29/00 POWER ON, RESET, OR BUS DEVICE RESET OCCURRED, 4096 bytes missing  (fault: power cut)"),
        ("server", "CHECK CONDITION, 6/29/00 POWER ON, RESET, OR BUS DEVICE RESET OCCURRED, 4096 bytes missing: will pass"),
        ("server", "sends READ(10)"),
        ("target", "READ(10), 8 blocks at 96: GOOD"),
        ("server", "GOOD"),
        ("server", "commits 4096 bytes"),
    ],
    "is content"
)]
#[case::short_answer(
    "short answer",
    Deed::Reads,
    Effect::data_in(DataIn::Limit(1024)),
    Times::Once,
    &[
        ("server", "Read, 8 sectors at 96"),
        ("server", "sends READ(10)"),
        ("target", "READ(10), 8 blocks at 96: GOOD, 3072 bytes missing  (fault: short answer)"),
        ("server", "GOOD, 3072 bytes missing"),
        ("server", "sends READ(10)"),
        ("target", "READ(10), 6 blocks at 98: GOOD"),
        ("server", "GOOD"),
        ("server", "commits 4096 bytes"),
    ],
    "is content"
)]
#[case::lost_way(
    "lost way",
    Deed::Writes,
    Effect::response("TRANSPORT FAILURE"),
    Times::First(2),
    &[
        ("server", "Write, 8 sectors at 96"),
        ("server", "sends WRITE(10)"),
        ("target", "WRITE(10), 8 blocks at 96: response 6  (fault: lost way)"),
        ("server", "host status TransportDisrupted: worth another attempt"),
        ("server", "sends WRITE(10)"),
        ("target", "WRITE(10), 8 blocks at 96: response 6  (fault: lost way)"),
        ("server", "host status TransportDisrupted: worth another attempt"),
        ("server", "sends WRITE(10)"),
        ("target", "WRITE(10), 8 blocks at 96: GOOD"),
        ("server", "GOOD"),
        ("server", "commits 4096 bytes"),
    ],
    "is content"
)]
fn fault_is_told_from_one_end_to_the_other(
    #[case] fault: &str,
    #[case] deed: Deed,
    #[case] effect: Effect,
    #[case] times: Times,
    #[case] expected: &[(&str, &str)],
    #[case] end: &str,
) {
    declare!(Contract, BRIDGE);
    let lun = Lun::with(thin());
    let bridged = Bridged::to(lun.device(), DataMode::AutoBuf);
    let disk = bridged.open();
    lun.faults([Rule::new(fault, effect).when(When::default().lba(96, 103)).times(times)]);
    let (timeline, journal) = asked(&lun, || {
        let mut timeline = Timeline::begin();
        timeline.application(deed.words());
        let result = deed.by(&disk);
        timeline.application(match result {
            Ok(()) => "is content".to_owned(),
            Err(error) => {
                let errno = Errno::from_io_error(&error).expect("the kernel's");
                format!("gets {}", name(errno))
            }
        });
        timeline
    });
    let lines = timeline.told(&bridged.log.take(), &journal);
    tell(&lines);
    let seen: Vec<String> = lines.iter().map(|line| without_time(line).to_owned()).collect();
    let mut all = vec![line("application", deed.words())];
    all.extend(expected.iter().map(|(who, words)| line(who, words)));
    all.push(line("application", end));
    assert_eq!(seen, all);
    drop(disk);
    bridged.delete();
}
