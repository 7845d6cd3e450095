//! A SCSI device behind virtqueues: the vhost-user-scsi transport of a [`device_server::Device`], and
//! what the daemon `sensecheck-target` is made of.
//!
//! This crate must not know what a command means: it moves requests between rings and device server,
//! keeps what is in flight, and answers for the transport. Outside [`backend`] nothing knows the
//! vhost-user protocol either.
//!
//! A front end connects to the socket a [`backend::FrontEnd`] serves, a bench to that of a
//! [`control_server::ControlServer`]; both act on one [`target::Target`].

pub mod backend;
mod batch;
pub mod chain;
mod control_queue;
pub mod control_server;
pub mod event_queue;
pub mod faults;
mod held;
pub mod journal;
mod poll;
mod request_queue;
pub mod scenario;
pub mod socket;
pub mod spec;
mod storage;
pub mod target;
mod timers;
pub mod unit;
pub mod wire;
