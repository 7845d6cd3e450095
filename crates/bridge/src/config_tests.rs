//! What `drivers/scsi/sd.c` makes of the same disk, and `ublk_drv.c:ublk_validate_params` takes.

use super::*;

fn disk() -> Disk {
    Disk {
        block_len: 512,
        blocks: 1 << 15,
        physical_exponent: 3,
        write_protected: false,
        write_cache: true,
        force_unit_access: true,
        transfer_max: 0,
        unmapping: Some(Unmapping::Unmap),
        unmap_max: u32::MAX,
        unmap_granularity: 8,
        unmap_alignment: 0,
        write_same: true,
        write_same_max: 0x1000,
        unmapped_is_zero: true,
    }
}

fn route() -> Route {
    Route {
        len_max: 32767 << 10,
        segments_max: 126,
        segment_len_max: 65536,
        virt_boundary: 0,
        alignment: 3,
        depth: 128,
    }
}

#[test]
fn device_is_what_the_disk_is() {
    let config = disk().config(&route(), DataMode::AutoBuf, 64);
    let (basic, discard, seg) = (config.params.basic, config.params.discard, config.params.seg);
    // UBLK_ATTR_VOLATILE_CACHE and UBLK_ATTR_FUA.
    assert_eq!(basic.attrs, 4 | 8);
    assert_eq!(
        (basic.logical_bs_shift, basic.physical_bs_shift, basic.dev_sectors),
        (9, 12, 32768)
    );
    assert_eq!((basic.max_sectors, config.info.max_io_buf_bytes), (2048, 1 << 20));
    assert_eq!(discard.max_discard_sectors, 0x7f_ffff);
    assert_eq!((discard.discard_granularity, discard.max_write_zeroes_sectors), (4096, 0x1000));
    assert_eq!((seg.max_segments, seg.max_segment_size), (126, 65536));
    assert_eq!((config.params.dma.alignment, config.info.queue_depth), (3, 64));
    assert_eq!(disk().config(&route(), DataMode::Copy, 500).info.queue_depth, 128);
}

/// block/blk-map.c:blk_rq_map_user_iov: memory of a process with more segments than the queue takes is EINVAL, where a
/// registered buffer would be copied. Each page of the server's buffer may be a segment.
#[test]
fn copying_device_has_no_request_that_needs_too_many_pages() {
    for mode in [DataMode::Copy, DataMode::GetData, DataMode::UserCopy] {
        let config = disk().config(&route(), mode, 64);
        assert_eq!(config.params.basic.max_sectors, 126 * 8, "{mode:?}");
    }
    for mode in [DataMode::ZeroCopy, DataMode::AutoBuf] {
        assert_eq!(disk().config(&route(), mode, 64).params.basic.max_sectors, 2048, "{mode:?}");
    }
}

#[test]
fn write_protected_disk_with_large_blocks_and_small_transfers() {
    let disk = Disk {
        block_len: 4096,
        physical_exponent: 0,
        write_protected: true,
        write_cache: false,
        transfer_max: 17,
        unmapping: None,
        ..disk()
    };
    let config = disk.config(&route(), DataMode::AutoBuf, 64);
    let (basic, discard) = (config.params.basic, config.params.discard);
    // UBLK_ATTR_READ_ONLY; FUA is for devices with a cache.
    assert_eq!((basic.attrs, basic.logical_bs_shift), (1, 12));
    assert_eq!((basic.max_sectors, basic.dev_sectors), (17 * 8, 32768 * 8));
    assert_eq!(config.info.max_io_buf_bytes, 17 * 4096);
    assert_eq!((discard.max_discard_sectors, discard.discard_granularity), (0, 32768));
}

/// sd.c:sd_config_write_same.
#[test]
fn write_same_is_as_long_as_the_disk_says() {
    let of = |write_same, write_same_max| Disk { write_same, write_same_max, ..disk() };
    let blocks = |known, most| of(known, most).write_same_blocks();
    assert_eq!(blocks(false, 0), 0);
    assert_eq!(blocks(false, 0x1000), 0);
    assert_eq!(blocks(true, 0), 0xfff8, "whole physical blocks of eight");
    let disk = Disk { physical_exponent: 0, ..of(true, 0) };
    assert_eq!(disk.write_same_blocks(), 0xffff);
    assert_eq!(blocks(true, 0x1000), 0x1000);
    assert_eq!(blocks(true, 0x2_0000), 0x2_0000);
    assert_eq!(blocks(true, u64::MAX), 0x7f_fff8);
}
