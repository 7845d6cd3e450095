//! A medium of zones that are written in sequence.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use zerocopy::{FromZeros, IntoBytes};

use super::{Op, Request, Target, ZoneOp};
use crate::uapi::{BlkZone, SECTOR_LEN, zone_cond};

/// `BLK_ZONE_TYPE_SEQWRITE_REQ`.
const SEQWRITE_REQ: u8 = 2;

/// Zones in memory, for [`crate::Config::zoned`]. A write goes to the write pointer of its zone, an append wherever that
/// is; what is behind it reads as zeroes.
#[derive(Debug)]
pub struct ZonedTarget {
    zone_sectors: u64,
    report_limit: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bytes: Vec<u8>,
    zones: Vec<Zone>,
}

#[derive(Clone, Copy, Debug)]
struct Zone {
    start: u64,
    wp: u64,
    cond: u8,
}

/// A length in bytes. Media fit in memory.
fn bytes_of(sectors: u64) -> usize {
    usize::try_from(sectors * u64::from(SECTOR_LEN)).expect("a medium fits in memory")
}

impl ZonedTarget {
    /// Empty zones.
    ///
    /// # Panics
    /// If the medium does not fit into the address space.
    pub fn new(zones: u64, zone_sectors: u32) -> Self {
        let zone_sectors = u64::from(zone_sectors);
        let bytes = vec![0; bytes_of(zones * zone_sectors)];
        let zones = (0..zones).map(|at| at * zone_sectors);
        let zones = zones.map(|start| Zone { start, wp: start, cond: zone_cond::EMPTY }).collect();
        let state = Mutex::new(State { bytes, zones });
        ZonedTarget { zone_sectors, report_limit: usize::MAX, state }
    }

    /// No report tells of more zones than so many, however many are asked for.
    #[must_use]
    pub fn reports_at_most(self, zones: usize) -> Self {
        ZonedTarget { report_limit: zones, ..self }
    }

    /// Where the next write to each zone goes, in sectors.
    pub fn write_pointers(&self) -> Vec<u64> {
        self.lock().zones.iter().map(|zone| zone.wp).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, zone: &Zone) -> BlkZone {
        BlkZone {
            start: zone.start,
            len: self.zone_sectors,
            wp: zone.wp,
            zone_type: SEQWRITE_REQ,
            cond: zone.cond,
            capacity: self.zone_sectors,
            ..BlkZone::new_zeroed()
        }
    }

    /// Fills the room for a report; its result is the whole room, for what is left of it ends the report.
    fn report(&self, state: &State, request: &mut Request<'_>) -> Result<u32, Errno> {
        let first = usize::try_from(request.start_sector / self.zone_sectors);
        let first = first.map_err(|_| Errno::IO)?;
        let zones = state.zones.get(first..).ok_or(Errno::IO)?;
        let room = request.data.chunks_exact_mut(size_of::<BlkZone>());
        for (entry, zone) in room.zip(zones).take(self.report_limit) {
            entry.copy_from_slice(self.entry(zone).as_bytes());
        }
        u32::try_from(request.data.len()).map_err(|_| Errno::IO)
    }

    fn read(state: &State, request: &mut Request<'_>) -> Result<u32, Errno> {
        let start = usize::try_from(request.start_byte()?).map_err(|_| Errno::IO)?;
        let end = start.checked_add(request.data.len()).ok_or(Errno::IO)?;
        request.data.copy_from_slice(state.bytes.get(start..end).ok_or(Errno::IO)?);
        u32::try_from(request.data.len()).map_err(|_| Errno::IO)
    }

    /// A write has to begin at the write pointer, an append at the beginning of its zone.
    fn write(&self, state: &mut State, request: &mut Request<'_>) -> Result<u32, Errno> {
        let State { bytes, zones } = state;
        let zone = self.zone(zones, request.start_sector)?;
        let must_begin = if request.op == Op::ZoneAppend { zone.start } else { zone.wp };
        let end = zone.wp + u64::from(request.sectors);
        let fits = end <= zone.start + self.zone_sectors && zone.cond != zone_cond::FULL;
        if request.start_sector != must_begin || !fits {
            return Err(Errno::IO);
        }
        bytes[bytes_of(zone.wp)..bytes_of(end)].copy_from_slice(request.data);
        request.start_sector = zone.wp;
        zone.wp = end;
        zone.cond = match zone.cond {
            _ if end == zone.start + self.zone_sectors => zone_cond::FULL,
            zone_cond::EXP_OPEN => zone_cond::EXP_OPEN,
            _ => zone_cond::IMP_OPEN,
        };
        u32::try_from(request.data.len()).map_err(|_| Errno::IO)
    }

    fn zone<'a>(&self, zones: &'a mut [Zone], sector: u64) -> Result<&'a mut Zone, Errno> {
        let at = usize::try_from(sector / self.zone_sectors).map_err(|_| Errno::IO)?;
        zones.get_mut(at).ok_or(Errno::IO)
    }

    fn change(&self, state: &mut State, op: ZoneOp, sector: u64) -> Result<u32, Errno> {
        let State { bytes, zones } = state;
        let all = op == ZoneOp::ResetAll;
        let chosen = match all {
            true => zones.as_mut_slice(),
            false => std::slice::from_mut(self.zone(zones, sector)?),
        };
        for zone in chosen {
            let end = zone.start + self.zone_sectors;
            match op {
                ZoneOp::Open if zone.cond == zone_cond::FULL => return Err(Errno::IO),
                ZoneOp::Open => zone.cond = zone_cond::EXP_OPEN,
                ZoneOp::Close if zone.cond == zone_cond::FULL => return Err(Errno::IO),
                ZoneOp::Close if zone.wp == zone.start => zone.cond = zone_cond::EMPTY,
                ZoneOp::Close => zone.cond = zone_cond::CLOSED,
                ZoneOp::Finish => (zone.wp, zone.cond) = (end, zone_cond::FULL),
                ZoneOp::Reset | ZoneOp::ResetAll => {
                    bytes[bytes_of(zone.start)..bytes_of(end)].fill(0);
                    (zone.wp, zone.cond) = (zone.start, zone_cond::EMPTY);
                }
            }
        }
        Ok(0)
    }
}

impl Target for ZonedTarget {
    fn handle(&self, request: &mut Request<'_>) -> Result<u32, Errno> {
        let mut state = self.lock();
        match request.op {
            Op::Flush => Ok(0),
            Op::Read => Self::read(&state, request),
            Op::Write | Op::ZoneAppend => self.write(&mut state, request),
            Op::ReportZones => self.report(&state, request),
            Op::Zone(op) => self.change(&mut state, op, request.start_sector),
            Op::Discard | Op::WriteZeroes | Op::Other(_) => Err(Errno::NOTSUP),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::tests::request;

    #[test]
    fn an_append_goes_to_the_write_pointer_and_says_so() {
        let target = ZonedTarget::new(2, 8);
        assert_eq!(target.handle(&mut request(Op::Write, 8, &mut [1; 1024])), Ok(1024));
        let mut data = [2; 512];
        let mut append = request(Op::ZoneAppend, 8, &mut data);
        assert_eq!((target.handle(&mut append), append.start_sector), (Ok(512), 10));
        assert_eq!(target.write_pointers(), [0, 11]);
        let mut back = [0; 1536];
        assert_eq!(target.handle(&mut request(Op::Read, 9, &mut back)), Ok(1536));
        assert_eq!([back[0], back[512], back[1024]], [1, 2, 0]);
    }

    #[test]
    fn what_does_not_begin_where_it_must_or_does_not_fit_is_an_error() {
        let target = ZonedTarget::new(2, 8);
        for (op, sector, len) in [
            (Op::Write, 1, 512),
            (Op::Write, 0, 9 * 512),
            (Op::ZoneAppend, 1, 512),
            (Op::ZoneAppend, 0, 9 * 512),
            (Op::Write, 16, 512),
        ] {
            let mut data = vec![1; len];
            let refused = target.handle(&mut request(op, sector, &mut data));
            assert_eq!(refused, Err(Errno::IO), "{op:?} {sector} {len}");
        }
        assert_eq!(target.handle(&mut request(Op::Zone(ZoneOp::Finish), 0, &mut [])), Ok(0));
        let full = target.handle(&mut request(Op::ZoneAppend, 0, &mut [1; 512]));
        assert_eq!((full, target.write_pointers()), (Err(Errno::IO), vec![8, 8]));
        assert_eq!(target.handle(&mut request(Op::Zone(ZoneOp::ResetAll), 0, &mut [])), Ok(0));
        assert_eq!(target.write_pointers(), [0, 8]);
    }

    #[test]
    fn a_report_ends_with_an_entry_without_a_length() {
        let target = ZonedTarget::new(4, 8).reports_at_most(2);
        let mut room = [0; 192];
        assert_eq!(target.handle(&mut request(Op::ReportZones, 8, &mut room)), Ok(192));
        let entry = |at: usize| u64::from_le_bytes(room[at..at + 8].try_into().expect("8 bytes"));
        assert_eq!([entry(0), entry(8), entry(16)], [8, 8, 8]);
        assert_eq!([entry(64), entry(72), entry(136)], [16, 8, 0]);
        assert_eq!(room[24..26], [2, 1]);
    }
}
