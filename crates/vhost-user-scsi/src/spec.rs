//! Logical units in the words of the control socket and of the device server.

use control::{DeviceType, LunSpec, LunState, Medium, PhysicalBlocks, Provisioning};
use device_server::{self as server, LuConfig, MediumConfig};

use crate::event_queue::Happening;

/// An address of the control socket in the device server's type.
#[must_use]
pub fn address_of(address: control::LunAddress) -> server::LunAddress {
    server::LunAddress { target: address.target, lun: address.lun }
}

/// What a unit shall become, in the device server's type.
#[must_use]
pub fn config_of(spec: LunSpec) -> LuConfig {
    LuConfig {
        device_type: match spec.device_type {
            DeviceType::Disk => server::DeviceType::Disk,
            DeviceType::Processor => server::DeviceType::Processor,
        },
        block_len: spec.block_len,
        blocks: spec.blocks,
        medium: match spec.medium {
            Medium::Ram => MediumConfig::Ram,
            Medium::File { path } => MediumConfig::File { path },
        },
        write_protect: spec.write_protect,
        provisioning: match spec.provisioning {
            Provisioning::Full => server::Provisioning::Full,
            Provisioning::Thin => server::Provisioning::Thin,
        },
        physical_blocks: server::PhysicalBlocks {
            exponent: spec.physical_blocks.exponent,
            lowest_aligned: spec.physical_blocks.lowest_aligned,
        },
        task_set_max: spec.task_set_max,
    }
}

/// Whether a unit is ready, in the device server's type.
#[must_use]
pub fn readiness_of(readiness: control::Readiness) -> server::Readiness {
    match readiness {
        control::Readiness::Ready => server::Readiness::Ready,
        control::Readiness::Stopped => server::Readiness::Stopped,
        control::Readiness::BecomingReady { progress } => {
            server::Readiness::BecomingReady { progress }
        }
    }
}

/// What an event says, in the event queue's type.
#[must_use]
pub fn happening_of(event: control::Event) -> Happening {
    match event {
        control::Event::Added => Happening::Added,
        control::Event::Removed => Happening::Removed,
        control::Event::Reset => Happening::Reset,
        control::Event::ParameterChanged { asc, ascq } => Happening::ParameterChanged(asc, ascq),
    }
}

/// What a unit is, in the control socket's types.
#[must_use]
pub fn state_of((address, config): (server::LunAddress, LuConfig)) -> LunState {
    LunState {
        address: control::LunAddress { target: address.target, lun: address.lun },
        spec: LunSpec {
            device_type: match config.device_type {
                server::DeviceType::Disk => DeviceType::Disk,
                server::DeviceType::Processor => DeviceType::Processor,
            },
            block_len: config.block_len,
            blocks: config.blocks,
            medium: match config.medium {
                MediumConfig::Ram => Medium::Ram,
                MediumConfig::File { path } => Medium::File { path },
            },
            write_protect: config.write_protect,
            provisioning: match config.provisioning {
                server::Provisioning::Full => Provisioning::Full,
                server::Provisioning::Thin => Provisioning::Thin,
            },
            physical_blocks: PhysicalBlocks {
                exponent: config.physical_blocks.exponent,
                lowest_aligned: config.physical_blocks.lowest_aligned,
            },
            task_set_max: config.task_set_max,
        },
    }
}
