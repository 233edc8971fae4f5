//! The one thread that writes. Jobs that wait together are committed together, so that many writers
//! share one sync of the disk.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

use heed::RwTxn;
use tokio::sync::{mpsc, oneshot};

use super::{
    codec::{self, GalleryRow, Record},
    environment::Environment,
    index,
    indexer::Indexer,
    memory::{Galleries, LiveGallery, Memory, no_gallery},
    reader,
    rows::NewRow,
};
use crate::{
    error::{Error, Kind, Result},
    gallery::{Binding, DocumentKind, GalleryName, Item, ItemId, NewItem, VectorFormat},
};

/// Jobs that wait at most; more wait for a place.
const WAITING: usize = 256;
/// Jobs of a commit at most.
const TOGETHER: usize = 256;

/// What is to be written.
#[derive(Debug)]
pub(super) enum Work {
    Create {
        name: GalleryName,
        binding: Binding,
    },
    Remove {
        name: GalleryName,
    },
    Rename {
        from: GalleryName,
        to: GalleryName,
    },
    Put {
        name: GalleryName,
        binding: Binding,
        items: Vec<NewItem>,
    },
    Delete {
        name: GalleryName,
        ids: Vec<ItemId>,
    },
    PutDocument {
        key: Vec<u8>,
        document: bytes::Bytes,
    },
    RemoveDocument {
        kind: DocumentKind,
        name: GalleryName,
        key: Vec<u8>,
    },
}

impl Work {
    /// Whether it leaves less on the disk than there was.
    fn frees(&self) -> bool {
        matches!(
            self,
            Self::Delete { .. } | Self::Remove { .. } | Self::RemoveDocument { .. }
        )
    }
}

/// Per item, whether it was new or was there; empty for what has no items.
type Answer = Vec<bool>;

#[derive(Debug)]
struct Job {
    work: Work,
    reply: oneshot::Sender<Result<Answer>>,
}

#[derive(Debug)]
enum Message {
    Job(Job),
    Stop,
}

/// The handle of the thread. It ends when it is stopped or dropped, and has written all that was
/// sent before.
#[derive(Debug)]
pub(super) struct Writer {
    /// `None` only while it is dropped.
    messages: Option<mpsc::Sender<Message>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(
        environment: Arc<Environment>,
        memory: Arc<Memory>,
        indexer: Arc<Indexer>,
        vectors: VectorFormat,
    ) -> Result<Self> {
        let (sender, messages) = mpsc::channel(WAITING);
        let thread = Thread {
            environment,
            memory,
            indexer,
            vectors,
        };
        let started = std::thread::Builder::new()
            .name("gallery".to_owned())
            .spawn(move || thread.run(messages));
        let started = started.map_err(|error| {
            Error::internal(format!("cannot start the gallery's thread: {error}"))
        })?;
        Ok(Self {
            messages: Some(sender),
            thread: Mutex::new(Some(started)),
        })
    }

    /// Waits until the disk has it.
    pub(super) async fn write(&self, work: Work) -> Result<Answer> {
        let gone = || Error::new(Kind::Unavailable, "the gallery has been closed");
        let (reply, answer) = oneshot::channel();
        let messages = self.messages.as_ref().ok_or_else(gone)?;
        messages
            .send(Message::Job(Job { work, reply }))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Ends the thread and waits for it.
    pub(super) async fn stop(&self) {
        if let Some(messages) = &self.messages
            && messages.send(Message::Stop).await.is_ok()
        {
            let thread = self
                .thread
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            // A panic of it has been logged.
            let _ = tokio::task::spawn_blocking(move || thread.map(JoinHandle::join)).await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.messages = None;
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let _ = thread.map(JoinHandle::join);
    }
}

/// Key of a document.
pub(super) fn document_key(kind: DocumentKind, name: &GalleryName) -> Vec<u8> {
    format!("{kind}/{name}").into_bytes()
}

struct Thread {
    environment: Arc<Environment>,
    memory: Arc<Memory>,
    indexer: Arc<Indexer>,
    vectors: VectorFormat,
}

impl Thread {
    fn run(self, mut messages: mpsc::Receiver<Message>) {
        let mut received = Vec::new();
        let mut stop = false;
        // A client that has gone may or may not have been heard: what it sent is written.
        while !stop && messages.blocking_recv_many(&mut received, TOGETHER) > 0 {
            let mut together = Vec::with_capacity(received.len());
            for message in received.drain(..) {
                match message {
                    Message::Job(job) if !stop => together.push(job),
                    // Its sender hears that the gallery is closed.
                    Message::Job(_) => {}
                    Message::Stop => stop = true,
                }
            }
            let works: Vec<&Work> = together.iter().map(|job| &job.work).collect();
            match self.commit_or_make_room(&works) {
                Ok(answers) => {
                    for (job, answer) in together.drain(..).zip(answers) {
                        let _ = job.reply.send(answer);
                    }
                }
                Err(_) if together.len() > 1 => {
                    // What is too large for the disk must not fail the others.
                    for job in together.drain(..) {
                        let alone = self.commit_or_make_room(&[&job.work]);
                        let answer = alone.and_then(|mut answers| {
                            answers.pop().unwrap_or_else(|| Ok(Vec::new()))
                        });
                        let _ = job.reply.send(answer);
                    }
                }
                Err(error) => {
                    if let Some(job) = together.pop() {
                        let _ = job.reply.send(Err(error));
                    }
                }
            }
            self.indexer.wake();
        }
    }

    /// Where the disk is full, deletions may use what was kept for them.
    fn commit_or_make_room(&self, works: &[&Work]) -> Result<Vec<Result<Answer>>> {
        match self.commit(works) {
            Err(error) if error.kind() == Kind::StorageFull => {
                if works.iter().all(|work| work.frees()) && self.environment.drop_ballast() {
                    self.commit(works)
                } else {
                    Err(error)
                }
            }
            Ok(answers) => {
                self.environment.take_ballast();
                Ok(answers)
            }
            Err(error) => Err(error),
        }
    }

    /// Commits the works in one transaction and publishes what they changed. An error of one work
    /// is among the answers; one of the disk fails all, and nothing has changed.
    fn commit(&self, works: &[&Work]) -> Result<Vec<Result<Answer>>> {
        let mut draft = Draft {
            environment: &self.environment,
            txn: self.environment.write()?,
            galleries: Galleries::clone(&self.memory.galleries()),
            changes: BTreeMap::new(),
            removed: Vec::new(),
            vectors: self.vectors,
        };
        let mut answers = Vec::with_capacity(works.len());
        for work in works {
            answers.push(match draft.apply(work) {
                Ok(answer) => Ok(answer),
                Err(Refusal::OfWork(error)) => Err(error),
                Err(Refusal::OfStore(error)) => return Err(error),
            });
        }
        let Draft {
            mut txn,
            galleries,
            changes,
            removed,
            ..
        } = draft;
        if !works.iter().all(|work| work.frees()) {
            self.environment
                .keep_room(&mut txn)
                .map_err(|error| self.environment.failed(error))?;
        }
        txn.commit()
            .map_err(|error| self.environment.failed(error))?;
        for (
            number,
            Changes {
                version,
                added,
                dead,
            },
        ) in changes
        {
            if let Some(gallery) = galleries.values().find(|gallery| gallery.number == number) {
                gallery
                    .rows
                    .store(Arc::new(gallery.rows.load().after(version, &added, &dead)));
            }
        }
        self.memory.publish(galleries);
        for gallery in removed {
            gallery.remove();
            index::remove_files(&self.memory.index_folder, gallery.number, None);
        }
        Ok(answers)
    }
}

/// Why a work is not done.
enum Refusal {
    /// It is at fault itself, and has not written anything.
    OfWork(Error),
    /// The disk is, and the whole transaction is off.
    OfStore(Error),
}

/// What a commit changes in the rows of a gallery.
#[derive(Default)]
struct Changes {
    version: u64,
    added: Vec<NewRow>,
    dead: Vec<u64>,
}

/// A transaction under way, and what memory will look like after it.
struct Draft<'a> {
    environment: &'a Environment,
    txn: RwTxn<'a>,
    galleries: Galleries,
    changes: BTreeMap<u32, Changes>,
    removed: Vec<Arc<LiveGallery>>,
    vectors: VectorFormat,
}

impl Draft<'_> {
    fn apply(&mut self, work: &Work) -> Result<Answer, Refusal> {
        match work {
            Work::Create { name, binding } => {
                match self.row(name)? {
                    Some(row) => row.binding.check(name, binding).map_err(Refusal::OfWork)?,
                    None => drop(self.create(name, binding)?),
                }
                Ok(Vec::new())
            }
            Work::Remove { name } => {
                let row = self
                    .row(name)?
                    .ok_or_else(|| Refusal::OfWork(no_gallery(name)))?;
                self.remove(name, &row)?;
                Ok(Vec::new())
            }
            Work::Rename { from, to } => self.rename(from, to),
            Work::Put {
                name,
                binding,
                items,
            } => self.put(name, binding, items),
            Work::Delete { name, ids } => self.delete(name, ids),
            Work::PutDocument { key, document } => {
                let environment = self.environment;
                self.stored(|txn| environment.tables.documents.put(txn, key, document))?;
                Ok(Vec::new())
            }
            Work::RemoveDocument { kind, name, key } => {
                let documents = self.environment.tables.documents;
                match self.stored(|txn| documents.delete(txn, key))? {
                    true => Ok(Vec::new()),
                    false => Err(Refusal::OfWork(super::no_document(*kind, name))),
                }
            }
        }
    }

    fn stored<T>(
        &mut self,
        write: impl FnOnce(&mut RwTxn<'_>) -> heed::Result<T>,
    ) -> Result<T, Refusal> {
        write(&mut self.txn).map_err(|error| Refusal::OfStore(self.environment.failed(error)))
    }

    fn row(&self, name: &GalleryName) -> Result<Option<GalleryRow>, Refusal> {
        let found = self
            .environment
            .tables
            .galleries
            .get(&self.txn, name.as_str().as_bytes());
        let found = found.map_err(|error| Refusal::OfStore(self.environment.failed(error)))?;
        found
            .map(|bytes| GalleryRow::decode(name, bytes))
            .transpose()
            .map_err(Refusal::OfStore)
    }

    fn put_row(&mut self, name: &GalleryName, row: &GalleryRow) -> Result<(), Refusal> {
        let galleries = self.environment.tables.galleries;
        let bytes = row.encode().map_err(Refusal::OfStore)?;
        self.stored(|txn| galleries.put(txn, name.as_str().as_bytes(), &bytes))
    }

    fn put_changed_row(&mut self, name: &GalleryName, row: &GalleryRow) -> Result<(), Refusal> {
        self.changes.entry(row.number).or_default().version = row.next_serial;
        self.put_row(name, row)
    }

    fn create(&mut self, name: &GalleryName, binding: &Binding) -> Result<GalleryRow, Refusal> {
        const NEXT: &[u8] = b"next gallery";
        let about = self.environment.tables.about;
        let next = self.stored(|txn| {
            Ok(about
                .get(txn, NEXT)?
                .and_then(|bytes| bytes.try_into().ok()))
        })?;
        let number = next.map_or(1, u32::from_le_bytes);
        self.stored(|txn| about.put(txn, NEXT, &(number + 1).to_le_bytes()))?;
        let row = GalleryRow {
            number,
            binding: binding.clone(),
            vectors: self.vectors,
            items: 0,
            next_place: 1,
            next_serial: 1,
        };
        self.put_row(name, &row)?;
        self.galleries
            .insert(name.clone(), Arc::new(LiveGallery::new(&row)));
        Ok(row)
    }

    fn remove(&mut self, name: &GalleryName, row: &GalleryRow) -> Result<(), Refusal> {
        let tables = self.environment.tables;
        self.stored(|txn| tables.galleries.delete(txn, name.as_str().as_bytes()))?;
        let (from, to) = (codec::prefix(row.number), codec::prefix(row.number + 1));
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&from), Bound::Excluded(&to));
        for table in [
            tables.ids,
            tables.records,
            tables.vectors,
            tables.features,
            tables.thumbnails,
        ] {
            self.stored(|txn| table.delete_range(txn, &range))?;
        }
        self.changes.remove(&row.number);
        self.removed.extend(self.galleries.remove(name));
        Ok(())
    }

    fn rename(&mut self, from: &GalleryName, to: &GalleryName) -> Result<Answer, Refusal> {
        let row = self
            .row(from)?
            .ok_or_else(|| Refusal::OfWork(no_gallery(from)))?;
        if from != to {
            if let Some(replaced) = self.row(to)? {
                self.remove(to, &replaced)?;
            }
            let galleries = self.environment.tables.galleries;
            self.stored(|txn| galleries.delete(txn, from.as_str().as_bytes()))?;
            self.put_row(to, &row)?;
            if let Some(gallery) = self.galleries.remove(from) {
                self.galleries.insert(to.clone(), gallery);
            }
        }
        Ok(Vec::new())
    }

    fn put(
        &mut self,
        name: &GalleryName,
        binding: &Binding,
        items: &[NewItem],
    ) -> Result<Answer, Refusal> {
        let mut row = match self.row(name)? {
            Some(row) => {
                row.binding.check(name, binding).map_err(Refusal::OfWork)?;
                row
            }
            None => self.create(name, binding)?,
        };
        let stored_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_millis() as u64);
        let mut created = Vec::with_capacity(items.len());
        for item in items {
            created.push(self.put_item(&mut row, item, stored_ms)?);
        }
        self.put_changed_row(name, &row)?;
        Ok(created)
    }

    fn put_item(
        &mut self,
        row: &mut GalleryRow,
        new: &NewItem,
        stored_ms: u64,
    ) -> Result<bool, Refusal> {
        let tables = self.environment.tables;
        let before = self.find(row.number, &new.id)?;
        let serial = row.next_serial;
        row.next_serial += 1;
        let place = before
            .as_ref()
            .map_or(row.next_place, |before| before.place);
        let item = Item {
            id: new.id.clone(),
            place,
            label: new.label.clone(),
            metadata: new.metadata.clone(),
            stored_ms,
        };
        let vector = codec::encode_floats(&new.vector, row.vectors);
        let features = new
            .features
            .as_ref()
            .map(|features| codec::encode_floats(features, VectorFormat::F16));
        let features = features.as_deref().unwrap_or_default();
        let thumbnail = new.thumbnail.as_deref().unwrap_or_default();
        let record = Record { item, serial }
            .encode([&vector, features, thumbnail])
            .map_err(Refusal::OfStore)?;
        let key = codec::place_key(row.number, place);
        self.stored(|txn| tables.records.put(txn, &key, &record))?;
        self.stored(|txn| tables.vectors.put(txn, &key, &vector))?;
        for (table, part) in [(tables.features, features), (tables.thumbnails, thumbnail)] {
            if !part.is_empty() {
                self.stored(|txn| table.put(txn, &key, part))?;
            } else if before.is_some() {
                self.stored(|txn| table.delete(txn, &key))?;
            }
        }
        let changes = self.changes.entry(row.number).or_default();
        match &before {
            Some(before) => changes.dead.extend(before.serial),
            None => {
                row.items += 1;
                row.next_place += 1;
                let id_key = codec::id_key(row.number, &new.id);
                self.stored(|txn| tables.ids.put(txn, &id_key, &place.to_le_bytes()))?;
            }
        }
        // As it will be read back.
        let vector = codec::decode_floats(&vector, row.vectors);
        let (label, metadata) = (new.label.clone(), new.metadata.clone());
        self.changes
            .entry(row.number)
            .or_default()
            .added
            .push(NewRow {
                serial,
                place,
                vector,
                label,
                metadata,
            });
        Ok(before.is_none())
    }

    fn delete(&mut self, name: &GalleryName, ids: &[ItemId]) -> Result<Answer, Refusal> {
        let tables = self.environment.tables;
        let mut row = self
            .row(name)?
            .ok_or_else(|| Refusal::OfWork(no_gallery(name)))?;
        let mut deleted = Vec::with_capacity(ids.len());
        for id in ids {
            let found = self.find(row.number, id)?;
            deleted.push(found.is_some());
            let Some(Before { place, serial }) = found else {
                continue;
            };
            let key = codec::place_key(row.number, place);
            for table in [
                tables.records,
                tables.vectors,
                tables.features,
                tables.thumbnails,
            ] {
                self.stored(|txn| table.delete(txn, &key))?;
            }
            self.stored(|txn| tables.ids.delete(txn, &codec::id_key(row.number, id)))?;
            // One that is damaged may have counted fewer; `check` tells.
            row.items = row.items.saturating_sub(1);
            row.next_serial += 1;
            self.changes
                .entry(row.number)
                .or_default()
                .dead
                .extend(serial);
        }
        self.put_changed_row(name, &row)?;
        Ok(deleted)
    }

    /// What is stored of an id. An item whose record is damaged can be replaced and deleted as
    /// others can.
    fn find(&self, gallery: u32, id: &ItemId) -> Result<Option<Before>, Refusal> {
        let place =
            reader::place(self.environment, &self.txn, gallery, id).map_err(Refusal::OfStore)?;
        let Some(place) = place else { return Ok(None) };
        let serial = match reader::record(self.environment, &self.txn, gallery, place) {
            Ok(record) => record.map(|record| record.serial),
            Err(_) => self.serial_in_memory(gallery, place),
        };
        Ok(Some(Before { place, serial }))
    }

    fn serial_in_memory(&self, gallery: u32, place: u64) -> Option<u64> {
        let gallery = self
            .galleries
            .values()
            .find(|known| known.number == gallery)?;
        gallery.rows.load().serial_at(place)
    }
}

/// An item that is stored already.
struct Before {
    place: u64,
    /// Of its living row, if it has one.
    serial: Option<u64>,
}
