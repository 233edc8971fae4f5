//! The LMDB environment of a gallery folder: its tables, locks and errors.

#![allow(
    unsafe_code,
    reason = "mapping a database file is unsafe by nature; the contract is below"
)]

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use heed::{EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls};

use super::tables::{TABLE_COUNT, Tables};
use crate::{
    error::{Error, Kind, Result},
    gallery::OpenMode,
};

/// Version of the format on disk. Folders of a later version are rejected.
const FORMAT: u32 = 1;
/// Size of the file with LMDB's reader slots, in bytes. The file is mapped and written to, so its
/// blocks must be allocated before the disk is full.
const LOCK_FILE_BYTES: usize = 64 << 10;
/// Number of values that each write adds and removes again. This leaves free pages for a deletion,
/// which needs some, too.
const RESERVE_VALUES: u32 = 64;
/// Size of such a value, in bytes.
const RESERVE_VALUE_BYTES: usize = 1900;
/// Size of the file that is removed when the disk is full and something is deleted, in bytes.
const BALLAST_BYTES: usize = 4 << 20;
/// Timeout for the end of the process that served the folder before.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// A snapshot of the database; a write transaction is one, too.
pub(super) type ReadTransaction<'a> = RoTxn<'a, WithoutTls>;

#[derive(Debug)]
pub(super) struct Environment {
    env: heed::Env<WithoutTls>,
    pub(super) tables: Tables,
    folder: PathBuf,
    /// Held while this process may write.
    _lock: Option<File>,
}

impl Environment {
    /// Opens the folder; [`OpenMode::Serve`] creates it if needed.
    pub(super) fn open(folder: &Path, max_bytes: u64, mode: OpenMode) -> Result<Self> {
        let named = |error| Error::io(format_args!("the gallery {}", folder.display()), error);
        let lock = match mode {
            OpenMode::Serve => {
                fs::create_dir_all(folder).map_err(named)?;
                let lock = lock(folder)?;
                reserve_lock_file(folder).map_err(named)?;
                Some(lock)
            }
            OpenMode::Read if folder.join("data.mdb").is_file() => None,
            OpenMode::Read => {
                let detail = format!("there is no gallery in {}", folder.display());
                return Err(Error::new(Kind::NotFound, detail));
            }
        };
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        let map = usize::try_from(max_bytes).unwrap_or(usize::MAX) / 4096 * 4096;
        options
            .map_size(map)
            .max_dbs(TABLE_COUNT as u32)
            .max_readers(1000);
        // SAFETY: only LMDB changes the file, under its own locks, and `lock` ensures that only one
        // process writes. The file must be on a local disk, as the documentation says.
        let env = unsafe { options.open(folder) }
            .map_err(|error| failed(error, max_bytes).context(folder.display()))?;
        // Slots of killed readers would prevent the reuse of old pages.
        env.clear_stale_readers()
            .map_err(|error| failed(error, max_bytes))?;
        let tables = match mode {
            OpenMode::Serve => Tables::create(&env),
            OpenMode::Read => Tables::open(&env),
        };
        let tables = tables.map_err(|error| failed(error, max_bytes).context(folder.display()))?;
        let tables = tables.ok_or_else(|| {
            let folder = folder.display();
            let detail = format!("{folder} is not a gallery: its tables are missing");
            Error::new(Kind::NotFound, detail)
        })?;
        if mode == OpenMode::Serve {
            // Makes the names of new files durable.
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(named)?;
        }
        let environment = Self {
            env,
            tables,
            folder: folder.to_owned(),
            _lock: lock,
        };
        environment.check_format(mode)?;
        if mode == OpenMode::Serve {
            environment.take_ballast();
        }
        Ok(environment)
    }

    fn check_format(&self, mode: OpenMode) -> Result<()> {
        let txn = self.read()?;
        let format = self.tables.about.get(&txn, b"format");
        let format = format.map_err(|error| self.failed(error))?;
        match format.map(<[u8; 4]>::try_from) {
            Some(Ok(bytes)) if u32::from_le_bytes(bytes) == FORMAT => Ok(()),
            Some(_) => {
                let detail = format!(
                    "{} was written by a later version of dinoserve",
                    self.folder.display()
                );
                Err(Error::new(Kind::Unavailable, detail))
            }
            None if mode == OpenMode::Serve => {
                drop(txn);
                let mut txn = self.write()?;
                let about = self.tables.about;
                let put = about.put(&mut txn, b"format", &FORMAT.to_le_bytes());
                put.and_then(|()| txn.commit())
                    .map_err(|error| self.failed(error))
            }
            None => Err(Error::new(
                Kind::NotFound,
                format!("{} is not a gallery", self.folder.display()),
            )),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Begins a read transaction: a snapshot of the database.
    pub(super) fn read(&self) -> Result<ReadTransaction<'_>> {
        self.env.read_txn().map_err(|error| self.failed(error))
    }

    /// Begins a read transaction that outlives the borrow of the environment.
    pub(super) fn read_owned(&self) -> Result<ReadTransaction<'static>> {
        let txn = self.env.clone().static_read_txn();
        txn.map_err(|error| self.failed(error))
    }

    /// Begins the only write transaction. Its commit returns once it is durable.
    pub(super) fn write(&self) -> Result<RwTxn<'_>> {
        self.env.write_txn().map_err(|error| self.failed(error))
    }

    /// Fails if the transaction would not leave room for a deletion.
    pub(super) fn keep_room(&self, txn: &mut RwTxn<'_>) -> heed::Result<()> {
        let value = [0; RESERVE_VALUE_BYTES];
        for key in 0..RESERVE_VALUES {
            self.tables.reserve.put(txn, &key.to_be_bytes(), &value)?;
        }
        self.tables.reserve.clear(txn)
    }

    /// Frees the reserved space on the disk, and returns whether there was any.
    pub(super) fn drop_ballast(&self) -> bool {
        fs::remove_file(self.ballast()).is_ok()
    }

    /// Reserves space on the disk for deletions, if there is room.
    pub(super) fn take_ballast(&self) {
        let path = self.ballast();
        if !path.exists() && fs::write(&path, vec![0; BALLAST_BYTES]).is_err() {
            let _ = fs::remove_file(path);
        }
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    pub(super) fn failed(&self, error: heed::Error) -> Error {
        match error {
            heed::Error::Io(error) if ran_out_of_room(&error, &self.folder) => disk_full(error),
            error => failed(error, self.env.info().map_size as u64),
        }
    }
}

/// Returns whether an error means that the disk is full. LMDB reports a short write, which is how
/// most disks become full, as an input/output error. Therefore a disk with less than a megabyte
/// left counts as full.
#[cfg(unix)]
fn ran_out_of_room(error: &std::io::Error, folder: &Path) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
        && rustix::fs::statvfs(folder)
            .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < 1 << 20)
}

#[cfg(not(unix))]
fn ran_out_of_room(_: &std::io::Error, _: &Path) -> bool {
    false
}

fn disk_full(error: std::io::Error) -> Error {
    let detail = "the disk under the gallery is full; nothing was written";
    Error::new(Kind::StorageFull, detail).with_source(error)
}

fn failed(error: heed::Error, max_bytes: u64) -> Error {
    match error {
        heed::Error::Mdb(MdbError::MapFull) => {
            let detail = format!(
                "the gallery's folder has reached its limit of {max_bytes} bytes; nothing was \
                 written"
            );
            Error::new(Kind::StorageFull, detail).with_limit(
                "gallery_max_bytes",
                max_bytes,
                "--gallery-max-bytes",
            )
        }
        heed::Error::EnvAlreadyOpened => Error::new(
            Kind::Unavailable,
            "the gallery is open in this process already",
        ),
        heed::Error::Io(error) => match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => disk_full(error),
            _ => Error::io("the gallery", error),
        },
        error => Error::internal(format!("the gallery's database: {error}")),
    }
}

/// Locks the folder against other servers. Waits a moment for a process that is about to end, as
/// after a quick restart.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("serving.lock");
    let named = |error| Error::io(path.display(), error);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(named)?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => {
                // The pid, for the error message of a second process.
                let _ = file
                    .set_len(0)
                    .and_then(|()| writeln!(file, "{}", std::process::id()));
                return Ok(file);
            }
            Err(fs::TryLockError::WouldBlock) if started.elapsed() < LOCK_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(fs::TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                let detail = format!(
                    "the gallery {} is open in another process ({}); stop it, or use its server",
                    folder.display(),
                    holder.trim()
                );
                return Err(Error::new(Kind::Unavailable, detail));
            }
            Err(fs::TryLockError::Error(error)) => return Err(named(error)),
        }
    }
}

/// Allocates the blocks of the file with LMDB's reader slots. An existing file may be in use, so it
/// is only extended.
fn reserve_lock_file(folder: &Path) -> std::io::Result<()> {
    let path = folder.join("lock.mdb");
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let has = file.metadata()?.len() as usize;
    if has >= LOCK_FILE_BYTES {
        return Ok(());
    }
    file.write_all(&vec![0; LOCK_FILE_BYTES - has])?;
    file.sync_all()
}
