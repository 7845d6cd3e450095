//! Memory that is taken away while the device has the command: what was pinned is used unseen, what was bounced is
//! copied to whatever is there then.

use std::{ops::Range, sync::Arc, thread};

use bsg::{Data, Region, Request};
use harness::{HostShape, Lun, Needs, ScsiHost, assert::assert_good, declare};
use rstest::rstest;

use super::{
    block,
    cdb::{self, Size},
    ways::{Way, execute},
};

const HOLDS: Needs = Needs { host: ScsiHost::Own(HostShape::DEFAULT), ..Needs::DEFAULT };

/// Where the data lies in a page: a multiple of 4 is mapped, anything else bounced
/// (block/blk-map.c:blk_rq_map_user_iov).
const MAPPED: usize = 512;
const BOUNCED: usize = 513;

/// What is done to the page.
type Blow = fn(&Region, Range<usize>) -> std::io::Result<()>;

/// Executes a command, and does something to the page of its data while the device has it.
#[track_caller]
fn execute_under(way: Way, lun: &Lun, request: Request, region: &Region, blow: Blow) {
    let device = lun.device().clone();
    lun.hold(1);
    let command = thread::spawn(move || execute(&mut *way.open(&device), request));
    lun.held(1);
    blow(region, 0..4096).expect("the page is ours");
    lun.release();
    assert_good(&command.join().expect("executed"));
}

/// A page with data of its own at `at`, and a part of it for a block.
fn page(at: usize, data: &[u8]) -> (Arc<Region>, bsg::Slice) {
    let region = Region::zeroed(4096).expect("a page");
    region.write(at, data);
    let slice = region.slice(at..at + 512);
    (region, slice)
}

/// block/bio.c:bio_iov_iter_get_pages, block/blk-map.c:bio_uncopy_user: a read into memory that goes away is executed
/// and succeeds. Pages that were given back do not see the data if they were mapped, and see it if it is copied.
#[rstest]
#[case::mapped_unmapped(MAPPED, Region::unmap, None)]
#[case::bounced_unmapped(BOUNCED, Region::unmap, None)]
#[case::mapped_discarded(MAPPED, Region::discard, Some(false))]
#[case::bounced_discarded(BOUNCED, Region::discard, Some(true))]
#[case::mapped_read_only(MAPPED, Region::make_read_only, Some(true))]
#[case::bounced_read_only(BOUNCED, Region::make_read_only, Some(false))]
fn read_into_memory_that_goes_away_succeeds(
    #[case] at: usize,
    #[case] blow: Blow,
    #[case] arrives: Option<bool>,
    #[values(Way::SgIoV4, Way::UringCmd)] way: Way,
) {
    declare!(Quirk, HOLDS);
    let lun = Lun::fresh();
    let data = cdb::pattern(4, 1, 6);
    block::write(&mut *way.open(lun.device()), Size::Ten, 4, 1, &data);
    let (region, slice) = page(at, &[0; 512]);
    let read = Request::new(&cdb::read(Size::Ten, 4, 1)).data(Data::SliceIn(slice));
    execute_under(way, &lun, read, &region, blow);
    if let Some(arrives) = arrives {
        let expected = if arrives { data } else { vec![0; 512] };
        assert_eq!(region.read(at, 512), expected);
    }
}

/// The other direction: the device gets what was there when the command was sent.
#[rstest]
#[case::mapped_unmapped(MAPPED, Region::unmap)]
#[case::bounced_unmapped(BOUNCED, Region::unmap)]
#[case::mapped_discarded(MAPPED, Region::discard)]
#[case::bounced_discarded(BOUNCED, Region::discard)]
fn write_from_memory_that_goes_away_writes_what_was_there(
    #[case] at: usize,
    #[case] blow: Blow,
    #[values(Way::SgIoV4, Way::UringCmd)] way: Way,
) {
    declare!(Contract, HOLDS);
    let lun = Lun::fresh();
    let data = cdb::pattern(4, 1, 6);
    let (region, slice) = page(at, &data);
    let write = Request::new(&cdb::write(Size::Ten, 4, 1)).data(Data::SliceOut(slice));
    execute_under(way, &lun, write, &region, blow);
    assert_eq!(block::read(&mut *way.open(lun.device()), Size::Ten, 4, 1), data);
}
