//! Texts of scenario files.

use vhost_user_scsi::scenario;

use super::{
    Sessions,
    corpus::{self, WORDS},
};
use crate::mutate::{self, one};

/// Texts of a session.
const TEXTS: usize = 40;

pub(super) fn prepare() -> anyhow::Result<Sessions> {
    let corpus = corpus::scenarios()?;
    Ok(Box::new(move |session| {
        for _ in 0..TEXTS {
            let rng = &mut session.rng;
            let mut text = one(rng, &corpus).clone().into_bytes();
            let times = rng.usize(0..6);
            mutate::text(rng, &mut text, WORDS, times);
            let text = String::from_utf8_lossy(&text);
            session.send(|| format!("--- scenario\n{text}"));
            if let Ok(read) = scenario::parse(&text, true) {
                // What is accepted once is accepted again.
                let again = scenario::parse(&text, true).expect("it was accepted before");
                assert_eq!(read, again);
            }
        }
    }))
}
