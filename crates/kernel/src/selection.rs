//! What was chosen for a name whose version the manifest does not fix, or no longer can: remembered
//! for a day, and used longer than that where the mirror cannot be asked.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use host::{
    apt::{self, Apt, DAY},
    cache::Cache,
    progress::Progress,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Error;

/// A thing of the cache that was chosen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Its name in the cache.
    pub(crate) key: String,
    /// What the reader of a report must know of the choice.
    pub(crate) note: Option<String>,
}

/// How a choice was made.
#[derive(Debug)]
pub(crate) enum Pick {
    /// What the manifest locks: the key.
    Locked(String),
    /// The newest of today.
    Newest(Chosen),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Selection<E> {
    /// The manifest's entry at that time: another entry means another choice.
    entry: E,
    /// The mirror asked for at that time.
    mirror: Option<String>,
    key: String,
    note: Option<String>,
}

/// A choice to be made.
#[derive(Debug)]
pub(crate) struct Choice<'a, E> {
    pub(crate) cache: &'a Cache,
    /// What is chosen for.
    pub(crate) name: &'a str,
    pub(crate) entry: &'a E,
    pub(crate) options: &'a apt::Options,
    pub(crate) progress: &'a Progress,
}

impl<E: Clone + PartialEq + Serialize + DeserializeOwned> Choice<'_, E> {
    /// Today's earlier choice if the cache still has it, else a new one.
    pub(crate) fn make(
        &self,
        is_in_cache: impl Fn(&str) -> bool,
        choose: impl FnOnce(&Apt) -> Result<Pick, Error>,
    ) -> Result<Chosen, Error> {
        let options = &self.options.clone().with_environment();
        let earlier = self.earlier(options).filter(|(chosen, _)| is_in_cache(&chosen.key));
        let earlier = match earlier {
            Some((chosen, age)) if age < DAY => return Ok(chosen),
            Some((chosen, _)) => Some(chosen),
            None => None,
        };
        match (
            Apt::open(self.cache, options).map_err(Error::from).and_then(|apt| choose(&apt)),
            earlier,
        ) {
            (Ok(Pick::Locked(key)), _) => Ok(Chosen { key, note: None }),
            (Ok(Pick::Newest(chosen)), _) => {
                if let Some(note) = &chosen.note {
                    self.progress.note(&format!("NOTE: {note}"));
                }
                self.keep(options, &chosen)?;
                Ok(chosen)
            }
            // Without the network, what was the newest some days ago is better than nothing.
            (Err(error), Some(earlier)) => {
                let name = self.name;
                let note =
                    format!("{name} is as found earlier, no newer one was looked at: {error}");
                self.progress.note(&note);
                let note =
                    earlier.note.map_or(note.clone(), |earlier| format!("{earlier}; {note}"));
                Ok(Chosen { key: earlier.key, note: Some(note) })
            }
            (Err(error), None) => Err(error),
        }
    }

    /// The earlier choice for an unchanged entry, and its age.
    fn earlier(&self, options: &apt::Options) -> Option<(Chosen, Duration)> {
        let path = self.cache.path(&self.file());
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok()?;
        // A clock set back makes it look new-born in the future: then look again.
        let age = SystemTime::now().duration_since(modified).unwrap_or(DAY);
        let selection: Selection<E> = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        let Selection { entry, mirror, key, note } = selection;
        let is_same = entry == *self.entry && mirror == options.mirror;
        is_same.then_some((Chosen { key, note }, age))
    }

    fn keep(&self, options: &apt::Options, chosen: &Chosen) -> Result<(), Error> {
        let selection = Selection {
            entry: self.entry.clone(),
            mirror: options.mirror.clone(),
            key: chosen.key.clone(),
            note: chosen.note.clone(),
        };
        let json = serde_json::to_vec_pretty(&selection).expect("plain data has a JSON form");
        self.cache.write(&self.file(), &json)?;
        Ok(())
    }

    fn file(&self) -> String {
        format!("selections/{}.json", self.name)
    }
}
