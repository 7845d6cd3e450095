//! The ring again, with all data in a buffer that is registered with it.

use std::sync::Arc;

use bsg::{Access, BsgUring, Buffer, Completion, Data, Error, Passthrough, Region, Request};
use harness::ScsiDevice;

use super::{CANARY, cases::BLOCKS};
use crate::bsg::ways::uring_cmd;

const PAGE_LEN: usize = 4096;
/// The longest transfer, at any offset in its first page.
const LEN: usize = (BLOCKS as usize + 2) * PAGE_LEN;

/// A ring with one registered buffer, which takes the data of every command in turn.
pub(super) struct Fixed {
    bsg: BsgUring,
    region: Arc<Region>,
}

impl Fixed {
    pub(super) fn open(device: &ScsiDevice) -> Self {
        let mut bsg = uring_cmd(device, Access::ReadWrite);
        let region = Region::zeroed(LEN).expect("memory");
        bsg.register_buffers(&[Some(Arc::clone(&region))]).expect("registered");
        Fixed { bsg, region }
    }
}

/// Where a buffer begins in its page.
fn offset(buffer: &mut Buffer) -> usize {
    usize::try_from(buffer.address()).expect("an address") % PAGE_LEN
}

impl Passthrough for Fixed {
    /// The buffer of the request stands for the same place in the registered one; what comes is that of the request.
    fn execute(&mut self, request: Request) -> Result<Completion, Error> {
        let Request { cdb, data, sense_capacity, timeout_ms, .. } = request;
        self.region.fill(CANARY);
        let (data, len_in) = match data {
            Data::In(mut buffer) => {
                let at = offset(&mut buffer);
                let slice = self.region.slice(at..at + buffer.len());
                (Data::SliceIn(slice), Some((at, buffer.len())))
            }
            Data::Out(mut buffer) => {
                let at = offset(&mut buffer);
                self.region.write(at, &buffer);
                (Data::SliceOut(self.region.slice(at..at + buffer.len())), None)
            }
            other => (other, None),
        };
        let fixed = (!matches!(data, Data::None)).then_some(0);
        let request = Request { cdb, data, sense_capacity, timeout_ms, fixed };
        let mut done = self.bsg.execute(request)?;
        if let Some((at, len)) = len_in {
            done.data = self.region.read(at, len);
            assert_eq!(self.region.read(0, at), vec![CANARY; at], "before the data");
            let behind = self.region.read(at + len, LEN - at - len);
            assert_eq!(behind, vec![CANARY; LEN - at - len], "behind the data");
        }
        Ok(done)
    }
}
