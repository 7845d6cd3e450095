//! Where scsi_debug and our target differ, each with the clause of the standard that explains it: SPC is
//! SPC-4, SBC is SBC-3, SAM is SAM-5.

/// What the standard has to do with it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standard {
    /// It leaves the choice, and the law is stricter than the standard.
    LeavesOpen,
    /// It says what the law says, and scsi_debug does otherwise.
    Demands,
}
use Standard::{Demands, LeavesOpen};

/// Laws that scsi_debug does not obey, for one reason.
pub(super) struct Difference {
    pub(super) standard: Standard,
    /// The clause, what it says, and what scsi_debug does.
    pub(super) clause: &'static str,
    /// Laws and their units.
    pub(super) laws: &'static [&'static str],
}

/// Subjects that scsi_debug has no command for.
pub(super) const NOT_SUPPORTED: &[(&str, Standard, &str)] = &[
    (
        "echo_buffer",
        LeavesOpen,
        "SPC, Commands for all device types: READ BUFFER is optional, and so is every mode of WRITE BUFFER",
    ),
    (
        "persistent_reservation",
        LeavesOpen,
        "SPC, Commands for all device types: PERSISTENT RESERVE IN and OUT are optional",
    ),
];

/// What scsi_debug does besides on kernels before 6.16; seen on 6.12.117.
pub(super) const BEFORE_6_16: &[Difference] = &[Difference {
    standard: Demands,
    clause: "SPC, REPORT SUPPORTED OPERATION CODES, CDB LENGTH: that of the command, as its own report has it; here \
             the list of all commands has 16 for TEST UNIT READY",
    laws: &["reports::every_command_reported_answers_for_itself (512)"],
}];

/// By subject.
#[rustfmt::skip]
pub(super) const DIFFERENCES: &[Difference] = &[
    Difference {
        standard: Demands,
        clause: "SBC, Block Limits VPD page, MAXIMUM COMPARE AND WRITE LENGTH: zero says that the command is \
                 not supported; here it is",
        laws: &["block_sizes::blocks_of_512_bytes (512)"],
    },
    Difference {
        standard: LeavesOpen,
        clause: "SBC, Logical Block Provisioning VPD page, PROVISIONING TYPE: zero reports no type",
        laws: &["block_sizes::a_thin_unit_says_what_it_can_unmap (thin 512)"],
    },
    Difference {
        standard: LeavesOpen,
        clause: "SBC, Block Limits VPD page, UGAVALID: zero reports no alignment of granules",
        laws: &["block_sizes::the_granule_of_a_thin_unit_is_one_block_of_4096_bytes (thin 4096)"],
    },
    Difference {
        standard: Demands,
        clause: "SBC, READ(10), RDPROTECT: a value other than zero is refused with INVALID FIELD IN CDB by a \
                 unit without protection information; here it is not looked at",
        laws: &["blocks::protection_information_is_refused_where_there_is_none (512)"],
    },
    Difference {
        standard: Demands,
        clause: "SBC, COMPARE AND WRITE: INFORMATION is the offset of the first byte that differs; here the \
                 sense data has none",
        laws: &[
            "compare_and_write::what_is_not_stays_and_is_told_by_its_offset (512)",
            "compare_and_write::what_is_not_stays_and_is_told_by_its_offset (4096)",
        ],
    },
    Difference {
        standard: Demands,
        clause: "SPC, INQUIRY, PAGE CODE: with EVPD zero it has to be zero; here it is not looked at",
        laws: &["identity::a_page_code_without_evpd_is_refused (512)"],
    },
    Difference {
        standard: Demands,
        clause: "SPC, MODE SELECT(6): the unit attention MODE PARAMETERS CHANGED is for every I_T nexus but \
                 the one that changed them; here that one gets it too",
        laws: &[
            "compare_and_write::it_is_a_write (512)",
            "mode_select::block_descriptor_may_repeat_what_is (512)",
            "mode_select::d_sense_changes_the_format_of_sense_data (512)",
            "mode_select::swp_refuses_writes_and_shows_in_wp (512)",
            "mode_select::ten_does_what_six_does (512)",
            "mode_select::wce_is_what_was_selected (512)",
            "provisioning::unmap_is_a_write (thin 512)",
            "verify::verify_is_no_write (512)",
            "write_same::it_is_a_write (512)",
        ],
    },
    Difference {
        standard: Demands,
        clause: "SPC, Mode parameters: a logical unit reset brings the default values back; here D_SENSE stays",
        laws: &["mode_select::reset_brings_the_defaults_back (512)"],
    },
    Difference {
        standard: Demands,
        clause: "SPC, MODE SELECT(6): a value in a field that is not changeable is refused; here the page is \
                 taken as it comes, reserved values included",
        laws: &[
            "mode_select::qerr_10b_is_reserved (512)",
            "mode_select::what_is_not_changeable_is_refused (512)",
        ],
    },
    Difference {
        standard: Demands,
        clause: "SPC, MODE SELECT(6): a list with a page in error is refused and changes nothing; here only the \
                 first page is looked at",
        laws: &["mode_select::a_list_is_taken_whole_or_not_at_all (512)"],
    },
    Difference {
        standard: Demands,
        clause: "SPC, MODE SELECT(6), PARAMETER LIST LENGTH: one that cuts the header is PARAMETER LIST LENGTH \
                 ERROR; here it is GOOD",
        laws: &["mode_select::a_list_that_is_cut_is_a_length_error (512)"],
    },
    Difference {
        standard: Demands,
        clause: "SPC, Sense key specific sense data, FIELD POINTER: the byte in error, here SP and PF; \
                 PARAMETER LIST LENGTH is named instead",
        laws: &["mode_select::saving_and_vendor_pages_are_refused (512)"],
    },
    Difference {
        standard: Demands,
        clause: "SBC, GET LBA STATUS parameter data: PARAMETER DATA LENGTH counts the bytes that follow; here \
                 eight more follow, and there is never more than one descriptor",
        laws: &[
            "provisioning::a_write_maps_its_granules (thin 512)",
            "provisioning::every_block_is_a_granule (thin 4096)",
            "provisioning::every_block_of_a_full_unit_is_mapped_and_stays_so (512)",
            "provisioning::nothing_is_mapped_at_first (thin 4096)",
            "provisioning::nothing_is_mapped_at_first (thin 512)",
            "provisioning::status_beyond_the_end_is_refused (thin 512)",
            "provisioning::status_is_cut_to_what_there_is_room_for (thin 512)",
            "provisioning::unmap_leaves_parts_of_granules (thin 512)",
            "provisioning::unmap_of_the_last_granule (thin 512)",
            "provisioning::unmap_takes_several_descriptors (thin 512)",
            "provisioning::unmapped_blocks_read_as_zeros (thin 512)",
        ],
    },
    Difference {
        standard: Demands,
        clause: "SBC, WRITE SAME(10), UNMAP: what is not unmapped is written; here the parts of granules at both \
                 ends keep their old data",
        laws: &["provisioning::write_same_unmaps_what_reads_the_same (thin 512)"],
    },
    Difference {
        standard: Demands,
        clause: "SBC, UNMAP, PARAMETER LIST LENGTH: one that cuts the header is PARAMETER LIST LENGTH ERROR; here \
                 it is INVALID FIELD IN CDB",
        laws: &["provisioning::lists_that_are_no_lists_are_refused (thin 512)"],
    },
    Difference {
        standard: LeavesOpen,
        clause: "SBC, UNMAP: whether descriptors before the one that is out of range are processed; here they are",
        laws: &["provisioning::all_descriptors_or_none (thin 512)"],
    },
    Difference {
        standard: Demands,
        clause: "SPC, LOG SENSE, PARAMETER POINTER: parameters begin at it; here it is not looked at",
        laws: &["reports::log_parameters_begin_at_the_pointer (512)"],
    },
    Difference {
        standard: LeavesOpen,
        clause: "SPC, REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: which there are; here ABORT TASK, ABORT TASK \
                 SET, LOGICAL UNIT RESET and I_T NEXUS RESET",
        laws: &["reports::task_management_functions_are_those_that_work (512)"],
    },
    Difference {
        standard: Demands,
        clause: "SPC-2, RESERVE(6), 3RDPTY and EXTENT: what is not supported is refused; here everything is \
                 GOOD and nothing is reserved",
        laws: &["reserve::third_parties_and_extents_are_refused (512)"],
    },
    Difference {
        standard: LeavesOpen,
        clause: "SBC, START STOP UNIT, LOEJ: what it means to a medium that cannot be removed",
        laws: &["start_stop::there_is_nothing_to_eject_and_no_power_condition (512)"],
    },
    Difference {
        standard: LeavesOpen,
        clause: "SAM, Unit attention conditions: POWER ON, RESET, OR BUS DEVICE RESET OCCURRED may stand for BUS \
                 DEVICE RESET FUNCTION OCCURRED; here it does",
        laws: &[
            "start_stop::reset_starts_the_unit (512)",
            "unit_attention::inquiry_and_report_luns_leave_the_condition (512)",
            "unit_attention::reset_is_reported_once (512)",
            "unit_attention::the_command_is_not_processed (512)",
        ],
    },
    Difference {
        standard: Demands,
        clause: "SPC, REQUEST SENSE: a pending unit attention condition is its parameter data; here it says NO \
                 SENSE and the condition stays",
        laws: &["unit_attention::request_sense_reports_the_condition_and_clears_it (512)"],
    },
    Difference {
        standard: Demands,
        clause: "SBC, VERIFY(10): blocks that are not there are LOGICAL BLOCK ADDRESS OUT OF RANGE; here only if \
                 BYTCHK has them compared",
        laws: &[
            "verify::without_comparing_it_wants_blocks_that_are_there (512)",
            "verify::without_comparing_it_wants_blocks_that_are_there (thin 512)",
        ],
    },
    Difference {
        standard: Demands,
        clause: "SPC, Sense key specific sense data, FIELD POINTER: counted from zero, BYTCHK is in byte 1; here \
                 it is said to be in byte 2",
        laws: &["verify::what_is_not_supported_is_refused (512)"],
    },
    Difference {
        standard: LeavesOpen,
        clause: "SPC, Reserved: a device server need not look at reserved bits",
        laws: &["write_same::ten_has_no_ndob (512)"],
    },
    Difference {
        standard: LeavesOpen,
        clause: "SBC, Block Limits VPD page, WSNZ: where it is zero, a length of zero means all blocks to the end",
        laws: &["write_same::zero_blocks_and_too_many_are_refused (512)"],
    },
    Difference {
        standard: LeavesOpen,
        clause: "SPC, Sense key specific sense data, FIELD POINTER: where two fields make the error, either may be \
                 named: code and SPF or subpage of a page, UNMAP and ANCHOR",
        laws: &[
            "mode_select::an_unknown_page_is_refused (512)",
            "reports::log_pages_that_are_not_are_refused (512)",
            "write_same::unmap_and_anchor_are_refused_where_every_block_is_mapped (512)",
        ],
    },
    Difference {
        standard: Demands,
        clause: "SBC, WRITE SAME(10), ANCHOR: refused where ANC_SUP is zero; here it is not looked at",
        laws: &["write_same::anchor_is_refused (thin 512)"],
    },
];
