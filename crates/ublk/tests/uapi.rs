//! Our structures and numbers against the C header, and against numbers written down by hand.

#[path = "../../bsg/tests/c_probe/mod.rs"]
mod c_probe;

use c_probe::Item;
use ublk::Features;
use ublk::uapi::{
    BatchIo, CtrlCmd, DevInfo, ElemHeader, IoCmd, IoDesc, ParamBasic, ParamDevt, ParamDiscard,
    ParamDmaAlign, ParamIntegrity, ParamSegment, ParamZoned, Params, ShmemBufReg, auto_buf, batch,
    ctrl, io, io_flag, op, position, shmem,
};

/// Our number, its name in C, and the number written out, for headers that lack the name.
#[rustfmt::skip]
const COMMANDS: &[(u32, &str, u32)] = &[
    (ctrl::GET_QUEUE_AFFINITY,   "UBLK_U_CMD_GET_QUEUE_AFFINITY",   0x8020_7501),
    (ctrl::GET_DEV_INFO,         "UBLK_U_CMD_GET_DEV_INFO",         0x8020_7502),
    (ctrl::ADD_DEV,              "UBLK_U_CMD_ADD_DEV",              0xc020_7504),
    (ctrl::DEL_DEV,              "UBLK_U_CMD_DEL_DEV",              0xc020_7505),
    (ctrl::START_DEV,            "UBLK_U_CMD_START_DEV",            0xc020_7506),
    (ctrl::STOP_DEV,             "UBLK_U_CMD_STOP_DEV",             0xc020_7507),
    (ctrl::SET_PARAMS,           "UBLK_U_CMD_SET_PARAMS",           0xc020_7508),
    (ctrl::GET_PARAMS,           "UBLK_U_CMD_GET_PARAMS",           0x8020_7509),
    (ctrl::START_USER_RECOVERY,  "UBLK_U_CMD_START_USER_RECOVERY",  0xc020_7510),
    (ctrl::END_USER_RECOVERY,    "UBLK_U_CMD_END_USER_RECOVERY",    0xc020_7511),
    (ctrl::GET_DEV_INFO2,        "UBLK_U_CMD_GET_DEV_INFO2",        0x8020_7512),
    (ctrl::GET_FEATURES,         "UBLK_U_CMD_GET_FEATURES",         0x8020_7513),
    (ctrl::DEL_DEV_ASYNC,        "UBLK_U_CMD_DEL_DEV_ASYNC",        0x8020_7514),
    (ctrl::UPDATE_SIZE,          "UBLK_U_CMD_UPDATE_SIZE",          0xc020_7515),
    (ctrl::QUIESCE_DEV,          "UBLK_U_CMD_QUIESCE_DEV",          0xc020_7516),
    (ctrl::TRY_STOP_DEV,         "UBLK_U_CMD_TRY_STOP_DEV",         0xc020_7517),
    (ctrl::REG_BUF,              "UBLK_U_CMD_REG_BUF",              0xc020_7518),
    (ctrl::UNREG_BUF,            "UBLK_U_CMD_UNREG_BUF",            0xc020_7519),
    (io::FETCH_REQ,              "UBLK_U_IO_FETCH_REQ",             0xc010_7520),
    (io::COMMIT_AND_FETCH_REQ,   "UBLK_U_IO_COMMIT_AND_FETCH_REQ",  0xc010_7521),
    (io::NEED_GET_DATA,          "UBLK_U_IO_NEED_GET_DATA",         0xc010_7522),
    (io::REGISTER_IO_BUF,        "UBLK_U_IO_REGISTER_IO_BUF",       0xc010_7523),
    (io::UNREGISTER_IO_BUF,      "UBLK_U_IO_UNREGISTER_IO_BUF",     0xc010_7524),
    (io::PREP_IO_CMDS,           "UBLK_U_IO_PREP_IO_CMDS",          0xc010_7525),
    (io::COMMIT_IO_CMDS,         "UBLK_U_IO_COMMIT_IO_CMDS",        0xc010_7526),
    (io::FETCH_IO_CMDS,          "UBLK_U_IO_FETCH_IO_CMDS",         0xc010_7527),
];

/// As above, for what is not a command.
#[rustfmt::skip]
const NUMBERS: &[(u64, &str, u64)] = &[
    (Features::SUPPORT_ZERO_COPY.bits(),       "UBLK_F_SUPPORT_ZERO_COPY",       0x1),
    (Features::URING_CMD_COMP_IN_TASK.bits(),  "UBLK_F_URING_CMD_COMP_IN_TASK",  0x2),
    (Features::NEED_GET_DATA.bits(),           "UBLK_F_NEED_GET_DATA",           0x4),
    (Features::USER_RECOVERY.bits(),           "UBLK_F_USER_RECOVERY",           0x8),
    (Features::USER_RECOVERY_REISSUE.bits(),   "UBLK_F_USER_RECOVERY_REISSUE",   0x10),
    (Features::UNPRIVILEGED_DEV.bits(),        "UBLK_F_UNPRIVILEGED_DEV",        0x20),
    (Features::CMD_IOCTL_ENCODE.bits(),        "UBLK_F_CMD_IOCTL_ENCODE",        0x40),
    (Features::USER_COPY.bits(),               "UBLK_F_USER_COPY",               0x80),
    (Features::ZONED.bits(),                   "UBLK_F_ZONED",                   0x100),
    (Features::USER_RECOVERY_FAIL_IO.bits(),   "UBLK_F_USER_RECOVERY_FAIL_IO",   0x200),
    (Features::UPDATE_SIZE.bits(),             "UBLK_F_UPDATE_SIZE",             0x400),
    (Features::AUTO_BUF_REG.bits(),            "UBLK_F_AUTO_BUF_REG",            0x800),
    (Features::QUIESCE.bits(),                 "UBLK_F_QUIESCE",                 0x1000),
    (Features::PER_IO_DAEMON.bits(),           "UBLK_F_PER_IO_DAEMON",           0x2000),
    (Features::BUF_REG_OFF_DAEMON.bits(),      "UBLK_F_BUF_REG_OFF_DAEMON",      0x4000),
    (Features::BATCH_IO.bits(),                "UBLK_F_BATCH_IO",                0x8000),
    (Features::INTEGRITY.bits(),               "UBLK_F_INTEGRITY",               0x1_0000),
    (Features::SAFE_STOP_DEV.bits(),           "UBLK_F_SAFE_STOP_DEV",           0x2_0000),
    (Features::NO_AUTO_PART_SCAN.bits(),       "UBLK_F_NO_AUTO_PART_SCAN",       0x4_0000),
    (Features::SHMEM_ZC.bits(),                "UBLK_F_SHMEM_ZC",                0x8_0000),
    (Features::IO_DESC_SIZE.bits(),            "UBLK_F_IO_DESC_SIZE",            0x10_0000),
    (op::ZONE_OPEN as u64,                     "UBLK_IO_OP_ZONE_OPEN",           10),
    (op::ZONE_CLOSE as u64,                    "UBLK_IO_OP_ZONE_CLOSE",          11),
    (op::ZONE_FINISH as u64,                   "UBLK_IO_OP_ZONE_FINISH",         12),
    (op::ZONE_APPEND as u64,                   "UBLK_IO_OP_ZONE_APPEND",         13),
    (op::ZONE_RESET_ALL as u64,                "UBLK_IO_OP_ZONE_RESET_ALL",      14),
    (op::ZONE_RESET as u64,                    "UBLK_IO_OP_ZONE_RESET",          15),
    (op::REPORT_ZONES as u64,                  "UBLK_IO_OP_REPORT_ZONES",        18),
    (io_flag::META as u64,                     "UBLK_IO_F_META",                 0x800),
    (io_flag::FUA as u64,                      "UBLK_IO_F_FUA",                  0x2000),
    (io_flag::NOUNMAP as u64,                  "UBLK_IO_F_NOUNMAP",              0x8000),
    (io_flag::SWAP as u64,                     "UBLK_IO_F_SWAP",                 0x1_0000),
    (io_flag::NEED_REG_BUF as u64,             "UBLK_IO_F_NEED_REG_BUF",         0x2_0000),
    (io_flag::INTEGRITY as u64,                "UBLK_IO_F_INTEGRITY",            0x4_0000),
    (io_flag::SHMEM_ZC as u64,                 "UBLK_IO_F_SHMEM_ZC",             0x8_0000),
    (position::IO_BUF_OFFSET,                  "UBLKSRV_IO_BUF_OFFSET",          0x8000_0000),
    (position::QID_OFF as u64,                 "UBLK_QID_OFF",                   41),
    (position::INTEGRITY_FLAG,                 "UBLKSRV_IO_INTEGRITY_FLAG",      1 << 62),
    (batch::HAS_ZONE_LBA as u64,               "UBLK_BATCH_F_HAS_ZONE_LBA",      1),
    (batch::HAS_BUF_ADDR as u64,               "UBLK_BATCH_F_HAS_BUF_ADDR",      2),
    (batch::AUTO_BUF_REG_FALLBACK as u64,      "UBLK_BATCH_F_AUTO_BUF_REG_FALLBACK", 4),
    (auto_buf::FALLBACK as u64,                "UBLK_AUTO_BUF_REG_FALLBACK",     1),
    (shmem::READ_ONLY as u64,                  "UBLK_SHMEM_BUF_READ_ONLY",       1),
];

#[test]
fn ublk_structures_and_commands_are_those_of_the_header() {
    let mut items = Vec::new();
    layout_items!(
        items,
        CtrlCmd,
        "ublksrv_ctrl_cmd",
        [dev_id, queue_id, len, addr, data, dev_path_len, pad, reserved]
    );
    layout_items!(items, IoCmd, "ublksrv_io_cmd", [q_id, tag, result, addr]);
    layout_items!(
        items,
        DevInfo,
        "ublksrv_ctrl_dev_info",
        [
            nr_hw_queues,
            queue_depth,
            state,
            io_desc_size,
            max_io_buf_bytes,
            dev_id,
            ublksrv_pid,
            pad1,
            flags,
            ublksrv_flags,
            owner_uid,
            owner_gid,
            reserved1,
            reserved2,
        ]
    );
    layout_items!(items, IoDesc, "ublksrv_io_desc", [op_flags, nr_sectors, start_sector, addr]);
    param_items(&mut items);
    layout_items!(
        items,
        BatchIo,
        "ublk_batch_io",
        [q_id, flags, nr_elem, elem_bytes, reserved, reserved2]
    );
    layout_items!(items, ElemHeader, "ublk_elem_header", [tag, buf_index, result]);
    layout_items!(items, ShmemBufReg, "ublk_shmem_buf_reg", [addr, len, flags, reserved]);
    for (ours, name, _) in NUMBERS {
        items.push(Item { group: "numbers", expression: (*name).into(), ours: *ours });
    }
    for (ours, name, _) in COMMANDS {
        items.push(Item { group: "commands", expression: (*name).into(), ours: (*ours).into() });
    }
    let compared = c_probe::compare(&["sys/ioctl.h", "linux/ublk_cmd.h"], &items);
    // Linux 6.1, the oldest header around, has 45 of them.
    assert!(compared >= 45, "only {compared} numbers were found in the header");
}

fn param_items(items: &mut Vec<Item>) {
    layout_items!(
        items,
        ParamBasic,
        "ublk_param_basic",
        [
            attrs,
            logical_bs_shift,
            physical_bs_shift,
            io_opt_shift,
            io_min_shift,
            max_sectors,
            chunk_sectors,
            dev_sectors,
            virt_boundary_mask,
        ]
    );
    layout_items!(
        items,
        ParamDiscard,
        "ublk_param_discard",
        [
            discard_alignment,
            discard_granularity,
            max_discard_sectors,
            max_write_zeroes_sectors,
            max_discard_segments,
            reserved0,
        ]
    );
    layout_items!(
        items,
        ParamDevt,
        "ublk_param_devt",
        [char_major, char_minor, disk_major, disk_minor]
    );
    layout_items!(
        items,
        ParamZoned,
        "ublk_param_zoned",
        [max_open_zones, max_active_zones, max_zone_append_sectors, reserved]
    );
    queue_limit_items(items);
    layout_items!(
        items,
        Params,
        "ublk_params",
        [len, types, basic, discard, devt, zoned, dma, seg, integrity]
    );
}

/// The parameters that only narrow what the block layer may send.
fn queue_limit_items(items: &mut Vec<Item>) {
    layout_items!(items, ParamDmaAlign, "ublk_param_dma_align", [alignment, pad]);
    layout_items!(
        items,
        ParamSegment,
        "ublk_param_segment",
        [seg_boundary_mask, max_segment_size, max_segments, pad]
    );
    layout_items!(
        items,
        ParamIntegrity,
        "ublk_param_integrity",
        [
            flags,
            max_integrity_segments,
            interval_exp,
            metadata_size,
            pi_offset,
            csum_type,
            tag_size,
            pad,
        ]
    );
}

#[test]
fn commands_have_the_documented_numbers() {
    for (ours, name, documented) in COMMANDS {
        assert_eq!(ours, documented, "{name}");
    }
    for (ours, name, documented) in NUMBERS {
        assert_eq!(ours, documented, "{name}");
    }
}

/// include/uapi/linux/ublk_cmd.h: UBLKSRV_IO_BUF_OFFSET + (q_id << 41) + (tag << 25) + offset;
/// ublk_auto_buf_reg_to_sqe_addr; ublk_shmem_zc_index and _offset.
#[test]
fn packed_numbers_are_those_of_the_header_s_functions() {
    assert_eq!(position::of(3, 5, 0x1234), 0x8000_0000 + (3 << 41) + (5 << 25) + 0x1234);
    assert_eq!(auto_buf::sqe_addr(0x1234, 1), 0x1_1234);
    assert_eq!(shmem::place(0x0002_8765_4321), (2, 0x8765_4321));
}
