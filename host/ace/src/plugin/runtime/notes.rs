//! What a channel notes of the addresses of its message, and the hold that it asks for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::message::{
    ADDRESS_BYTES_MAX, ADDRESSES_BYTES_MAX, ADDRESSES_MAX, AddressOutcome, AddressRecord, DETAILS_BYTES_MAX, Hold,
    KIND_BYTES_MAX, RecordAddresses, add_record,
};
use crate::plugin::Settings;

/// Bytes of a provider's error code; a longer one is truncated.
const CODE_BYTES_MAX: usize = 200;

/// The notes of one call.
#[derive(Default)]
pub struct Notes {
    /// Those of earlier attempts.
    earlier: Vec<AddressRecord>,
    /// `None`: they are stored with the result of the call.
    recorder: Option<Arc<dyn RecordAddresses>>,
    /// Those of this call. `None` until the first one.
    noted: Option<Arc<Noted>>,
    /// The channel's hold.
    pub hold: Option<Hold>,
}

/// The notes of a call and how many of them are stored. Requests that run in tasks of their own share it.
pub struct Noted {
    recorder: Option<Arc<dyn RecordAddresses>>,
    notes: Mutex<Latest>,
    /// The version that is stored.
    stored: tokio::sync::Mutex<u64>,
}

#[derive(Default)]
struct Latest {
    records: Vec<AddressRecord>,
    /// Those of earlier attempts and of this call.
    all: Vec<AddressRecord>,
    /// The number of notes so far.
    version: u64,
}

/// A note as the guest writes it.
#[derive(Deserialize)]
struct Note {
    kind: String,
    address: String,
    outcome: AddressOutcome,
    provider_id: Option<String>,
    code: Option<String>,
}

impl Notes {
    /// For a call after earlier attempts with these notes.
    pub fn after(earlier: Vec<AddressRecord>, recorder: Option<Arc<dyn RecordAddresses>>) -> Self {
        Notes { earlier, recorder, ..Notes::default() }
    }

    /// Adds a note of the plugin with these settings.
    ///
    /// # Errors
    /// It is malformed or beyond the limits; the text is for the plugin's author.
    pub fn add(&mut self, note: &str, settings: &Settings) -> Result<(), String> {
        let record = read(note, settings)?;
        let noted = self.noted.get_or_insert_with(|| {
            let notes = Mutex::new(Latest { all: self.earlier.clone(), ..Latest::default() });
            Arc::new(Noted { recorder: self.recorder.clone(), notes, stored: Default::default() })
        });
        noted.latest().add(record)
    }

    /// The notes of earlier attempts, in the form that guests write.
    pub fn earlier_json(&self) -> String {
        Value::Array(self.earlier.iter().map(written).collect()).to_string()
    }

    /// What must be stored before the next request is sent; `None` if nothing was noted or it is stored with the result.
    pub fn unstored(&self) -> Option<Arc<Noted>> {
        self.noted.as_ref().filter(|noted| noted.recorder.is_some()).cloned()
    }

    /// Takes the notes of this call.
    pub fn take(&mut self) -> Vec<AddressRecord> {
        self.noted.take().map(|noted| std::mem::take(&mut noted.latest().records)).unwrap_or_default()
    }
}

impl Latest {
    /// Adds a note, without its details if there are too many of them. A recipient's contacts are never too many.
    fn add(&mut self, mut record: AddressRecord) -> Result<(), String> {
        let others: Vec<_> = self.all.iter().filter(|other| !other.is_about(&record.kind, &record.address)).collect();
        let bytes = |of: fn(&AddressRecord) -> usize| others.iter().map(|other| of(other)).sum::<usize>() + of(&record);
        if others.len() == ADDRESSES_MAX {
            return Err(format!("more than {ADDRESSES_MAX} addresses are noted for the message"));
        }
        if bytes(AddressRecord::address_bytes) > ADDRESSES_BYTES_MAX {
            return Err(format!("the noted addresses are longer than {ADDRESSES_BYTES_MAX} bytes"));
        }
        if bytes(AddressRecord::detail_bytes) > DETAILS_BYTES_MAX {
            (record.provider_id, record.code) = (None, None);
        }
        add_record(&mut self.all, record.clone());
        add_record(&mut self.records, record);
        self.version += 1;
        Ok(())
    }
}

impl Noted {
    /// Stores the notes that are not stored yet. Nothing more may be sent before it returns.
    ///
    /// # Errors
    /// They could not be stored.
    pub async fn store(&self) -> Result<(), String> {
        let Some(recorder) = &self.recorder else { return Ok(()) };
        let mut stored = self.stored.lock().await;
        let (records, version) = {
            let latest = self.latest();
            (latest.records.clone(), latest.version)
        };
        if *stored < version {
            recorder.record(&records).await?;
            *stored = version;
        }
        Ok(())
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a request is not sent whose call's notes could not be stored.
pub(in crate::plugin) fn not_stored(why: &str) -> String {
    format!("nothing was sent, because the noted outcomes could not be stored: {why}")
}

fn read(note: &str, settings: &Settings) -> Result<AddressRecord, String> {
    let Note { kind, address, outcome, provider_id, code } = serde_json::from_str(note).map_err(|e| e.to_string())?;
    let check = |what: &str, text: &str, bytes_max: usize| {
        if text.is_empty() || text.len() > bytes_max {
            return Err(format!("{what} must have 1 to {bytes_max} bytes, not {}", text.len()));
        }
        Ok(())
    };
    check("kind", &kind, KIND_BYTES_MAX)?;
    check("address", &address, ADDRESS_BYTES_MAX)?;
    let provider_id = provider_id.map(|id| settings.clean(&id));
    let code = code.map(|code| settings.cut(&code, CODE_BYTES_MAX));
    let channel = settings.name.clone();
    Ok(AddressRecord { channel, kind, address, outcome, provider_id, code, reported: false })
}

/// A record as guests write it.
fn written(record: &AddressRecord) -> Value {
    let mut note = Map::new();
    let mut field = |name: &str, value: &str| drop(note.insert(name.to_owned(), value.into()));
    field("kind", &record.kind);
    field("address", &record.address);
    field("outcome", record.outcome.as_str());
    record.provider_id.iter().for_each(|id| field("provider_id", id));
    record.code.iter().for_each(|code| field("code", code));
    note.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Recording, check_contacts};
    use crate::plugin::tests::settings;

    /// Keeps what is stored, or fails.
    #[derive(Default)]
    struct Disk {
        writes: Mutex<Vec<String>>,
        is_full: bool,
    }

    impl RecordAddresses for Disk {
        fn record<'a>(&'a self, records: &'a [AddressRecord]) -> Recording<'a> {
            let addresses: String = records.iter().map(|record| record.address.as_str()).collect();
            self.writes.lock().expect("no panic").push(addresses);
            Box::pin(std::future::ready(if self.is_full { Err("the disk is full".to_owned()) } else { Ok(()) }))
        }
    }

    fn note(address: &str) -> String {
        format!(
            "{{\"kind\": \"push-token\", \"address\": \"{address}\", \"outcome\": \"sent\", \"provider_id\": null}}"
        )
    }

    #[tokio::test]
    async fn each_note_is_stored_once_and_before_a_request() {
        let disk = Arc::new(Disk::default());
        let mut notes = Notes::after(Vec::new(), Some(disk.clone()));
        assert!(notes.unstored().is_none(), "nothing is stored for a channel that notes nothing");
        notes.add(&note("a"), &settings()).expect("valid");
        let unstored = notes.unstored().expect("there is one");
        let (one, two) = tokio::join!(unstored.store(), unstored.store());
        assert_eq!((one, two), (Ok(()), Ok(())));
        notes.add(&note("b"), &settings()).expect("valid");
        unstored.store().await.expect("stored");
        assert_eq!(*disk.writes.lock().expect("no panic"), ["a", "ab"]);
        assert_eq!(notes.take().len(), 2);

        let disk = Arc::new(Disk { is_full: true, ..Disk::default() });
        let mut notes = Notes::after(Vec::new(), Some(disk));
        notes.add(&note("a"), &settings()).expect("valid");
        assert_eq!(notes.unstored().expect("there is one").store().await, Err("the disk is full".to_owned()));
    }

    #[test]
    fn a_note_is_valid_json_with_its_fields_and_bounded() {
        let add = |note: &str| Notes::default().add(note, &settings()).expect_err(note);
        for (wrong, words) in [
            ("", "EOF"),
            ("[]", "invalid length 0"),
            ("{\"kind\": \"a\", \"address\": \"b\"}", "missing field `outcome`"),
            ("{\"kind\": \"a\", \"address\": \"b\", \"outcome\": \"gone\"}", "unknown variant `gone`"),
            ("{\"kind\": \"a\", \"address\": 1, \"outcome\": \"sent\"}", "expected a string"),
            ("{\"kind\": \"a\", \"address\": \"\", \"outcome\": \"sent\"}", "address must have 1 to 4096 bytes, not 0"),
        ] {
            assert!(add(wrong).contains(words), "{wrong}: {}", add(wrong));
        }
        let mut notes = Notes::default();
        let long = |n: usize| note(&format!("{n}{}", "x".repeat(4_000)));
        let fitting = (0..100).take_while(|n| notes.add(&long(*n), &settings()).is_ok()).count();
        assert_eq!(fitting, 16, "64 KiB");
        assert_eq!((notes.earlier_json(), notes.take().len()), ("[]".to_owned(), 16));
    }

    #[test]
    fn the_outcome_for_each_contact_of_a_recipient_fits() {
        let address =
            |n: usize| format!("{n:03}{}", "x".repeat(ADDRESSES_BYTES_MAX / ADDRESSES_MAX - 3 - "push-token".len()));
        let contacts: Vec<_> = (0..ADDRESSES_MAX).map(|n| ("push-token".to_owned(), address(n))).collect();
        assert_eq!(check_contacts(&contacts), Ok(()));
        let mut notes = Notes::default();
        for (_, address) in &contacts {
            let note = note(address).replace("null", &format!("{:?}", "i".repeat(1_000)));
            notes.add(&note, &settings()).expect("it fits");
        }
        let noted = notes.take();
        let details = noted.iter().filter(|record| record.provider_id.is_some()).count();
        assert!(noted.len() == ADDRESSES_MAX && (1..ADDRESSES_MAX).contains(&details), "{details} of {}", noted.len());
    }

    #[test]
    fn earlier_notes_are_returned_as_they_were_written() {
        let mut notes = Notes::default();
        let written = "{\"kind\":\"push-token\",\"address\":\"a\",\"outcome\":\"failed\",\"code\":\"BadToken\"}";
        notes.add(written, &settings()).expect("valid");
        let later = Notes::after(notes.take(), None);
        assert_eq!(later.earlier_json(), format!("[{written}]"));
    }
}
