//! Our structures and numbers against the C header, and against numbers written down by hand.

#[path = "../../bsg/tests/c_probe/mod.rs"]
mod c_probe;

use c_probe::Item;
use ublk::uapi::{
    CtrlCmd, DevInfo, IoCmd, IoDesc, ParamBasic, ParamDevt, ParamDiscard, ParamDmaAlign,
    ParamIntegrity, ParamSegment, ParamZoned, Params, ctrl, io,
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
}
