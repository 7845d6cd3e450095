//! Rules of this repository that no compiler checks: they fail a test instead of needing a reviewer.
//! `CONTRIBUTING.md` says why each is there.

#![forbid(unsafe_code)]

mod arrows;
mod banned;
mod files;
mod places;
mod scenarios;
mod sizes;
mod tokens;
