//! Certificates of a cluster: its certificate authority (CA), and what it signs for nodes and clients. Which names
//! they carry is said in `env/src/transport/credentials.rs`.
//!
//! | file | what | mode |
//! |---|---|---|
//! | `ca.pem`, `ca.key` | the CA; whoever reads the key can be anybody | 0644, 0600 |
//! | `node-<id>.pem`, `node-<id>.key` | a node | 0644, 0600 |
//! | `client-<principal>.pem`, `client-<principal>.key` | a client | 0644, 0600 |
//! | `.lock` | held while files are made | 0600 |
//!
//! [`ensure_local`] may be run by many processes at once, and may be killed at any point:
//! 1. It takes the lock, so that one process at a time decides what is missing.
//! 2. A file is written under a temporary name, synced, and renamed, which fails rather than replace a file. A reader
//!    without the lock sees a whole file or none.
//! 3. A key comes before its certificate. After a crash between the two, the key is there alone; the next run issues
//!    the certificate for that key. A certificate alone is therefore never a crash, and is reported.
//! 4. The directory is synced before the lock is released.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use stoa_env::transport::credentials::{ANY_NODE_NAME, CLIENT_NAME, PRINCIPAL_BYTES_MAX, node_name};
use stoa_env::{Credentials, CredentialsError, PeerIdentity, WallTime};

/// How long a CA is valid: long, because replacing it means touching every machine.
const CA_VALIDITY: Duration = Duration::from_hours(10 * 365 * 24);
/// How long the certificate of a node or client is valid.
const LEAF_VALIDITY: Duration = Duration::from_hours(365 * 24);
/// Certificates are valid from a little before their time, because calendars of machines differ.
const CALENDAR_SLACK: Duration = Duration::from_hours(1);

/// Why certificates could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file or directory could not be read or written.
    #[error("{}: cannot be {action} ({source})", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// An existing file is of no use. It is never replaced: that is the operator's decision.
    #[error("{}: {reason}; repair it, or remove it together with its pair and run this again", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Existing files do not fit each other.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The principal cannot be part of a file's name.
    #[error(
        "{principal:?} cannot be a principal: it needs 1 to {PRINCIPAL_BYTES_MAX} of a-z, A-Z, 0-9, '-', '_' and '.', \
         and no '.' in front"
    )]
    BadPrincipal {
        /// The name as given.
        principal: String,
    },
    /// Another process has held the lock for too long.
    #[error("{}: another process has been making certificates for {waited:?}; end it and run this again", path.display())]
    Locked {
        /// The lock's file.
        path: PathBuf,
        /// Time that was waited.
        waited: Duration,
    },
    /// Making keys or signatures failed.
    #[error("the certificate could not be made ({0})")]
    Signing(#[from] rcgen::Error),
}

/// A certificate and its private key, as PEM text.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key, PKCS #8.
    pub key_pem: String,
}

/// Where a certificate and its private key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertFiles {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The files of a local cluster that one process needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalCerts {
    /// The CA's certificate.
    pub ca: PathBuf,
    /// The node's, if one was asked for.
    pub node: Option<CertFiles>,
    /// The clients', by principal.
    pub clients: BTreeMap<String, CertFiles>,
}

/// Makes a new CA, valid for ten years from `now`.
///
/// # Errors
/// [`CertsError::Signing`] if the machine gives no random bytes.
pub fn issue_ca(now: WallTime) -> Result<Issued, CertsError> {
    sign_ca(&KeyPair::generate()?, now)
}

/// Makes the certificate of node `node`, valid for one year from `now`.
///
/// # Errors
/// [`CertsError::Signing`] if `ca` is not a certificate and key.
pub fn issue_node(ca: &Issued, node: u64, now: WallTime) -> Result<Issued, CertsError> {
    sign_leaf(ca, &Subject::Node(node), &KeyPair::generate()?, now)
}

/// Makes the certificate of the client `principal`, valid for one year from `now`.
///
/// # Errors
/// [`CertsError::BadPrincipal`]; [`CertsError::Signing`] if `ca` is not a certificate and key.
pub fn issue_client(ca: &Issued, principal: &str, now: WallTime) -> Result<Issued, CertsError> {
    sign_leaf(ca, &Subject::client(principal)?, &KeyPair::generate()?, now)
}

/// Makes what is missing in `dir` of a local cluster's certificates: the CA, those of `node_id`, those of
/// `principals`. What exists is checked and never changed.
///
/// # Errors
/// [`CertsError`], which names the file at fault.
pub fn ensure_local(
    dir: &Path,
    node_id: Option<u64>,
    principals: &[&str],
    now: WallTime,
) -> Result<LocalCerts, CertsError> {
    let clients = principals.iter().map(|name| Subject::client(name)).collect::<Result<Vec<_>, _>>()?;
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io(dir, "created"))?;
    let _lock = lock(dir)?;
    let store = Directory { dir, now };
    let ca = store.ensure_ca()?;
    let node = node_id.map(|id| store.ensure_leaf(&ca, &Subject::Node(id))).transpose()?;
    let mut client_files = BTreeMap::new();
    for client in clients {
        client_files.insert(client.common_name(), store.ensure_leaf(&ca, &client)?);
    }
    Ok(LocalCerts { ca: dir.join("ca.pem"), node, clients: client_files })
}

/// Whom a certificate names.
enum Subject {
    Node(u64),
    Client(String),
}

impl Subject {
    fn client(principal: &str) -> Result<Self, CertsError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let fits = (1..=PRINCIPAL_BYTES_MAX).contains(&principal.len()) && !principal.starts_with('.');
        if !fits || !principal.chars().all(allowed) {
            return Err(CertsError::BadPrincipal { principal: principal.to_owned() });
        }
        Ok(Self::Client(principal.to_owned()))
    }

    fn common_name(&self) -> String {
        match self {
            Self::Node(id) => format!("node-{id}"),
            Self::Client(principal) => principal.clone(),
        }
    }

    fn file_stem(&self) -> String {
        match self {
            Self::Node(id) => format!("node-{id}"),
            Self::Client(principal) => format!("client-{principal}"),
        }
    }

    fn dns_names(&self) -> Vec<String> {
        match self {
            Self::Node(id) => vec![node_name(*id), ANY_NODE_NAME.to_owned()],
            Self::Client(_) => vec![CLIENT_NAME.to_owned()],
        }
    }

    /// Nodes dial each other, so they are TLS clients as well; a client must never be taken for a server.
    fn usages(&self) -> Vec<ExtendedKeyUsagePurpose> {
        match self {
            Self::Node(_) => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Self::Client(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        }
    }

    fn identity(&self) -> PeerIdentity {
        match self {
            Self::Node(id) => PeerIdentity::Node(*id),
            Self::Client(principal) => PeerIdentity::Client(principal.clone()),
        }
    }
}

fn sign_ca(key: &KeyPair, now: WallTime) -> Result<Issued, CertsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Stoa cluster CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)); // signs leaves alone
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, CA_VALIDITY);
    Ok(Issued { cert_pem: params.self_signed(key)?.pem(), key_pem: key.serialize_pem() })
}

fn sign_leaf(ca: &Issued, subject: &Subject, key: &KeyPair, now: WallTime) -> Result<Issued, CertsError> {
    let issuer = Issuer::from_ca_cert_pem(&ca.cert_pem, KeyPair::from_pem(&ca.key_pem)?)?;
    let mut params = CertificateParams::new(subject.dns_names())?;
    params.distinguished_name.push(DnType::CommonName, subject.common_name());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = subject.usages();
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, LEAF_VALIDITY);
    Ok(Issued { cert_pem: params.signed_by(key, &issuer)?.pem(), key_pem: key.serialize_pem() })
}

fn set_validity(params: &mut CertificateParams, now: WallTime, length: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = epoch + Duration::from_secs(u64::try_from(now.0 / 1_000_000).unwrap_or(0));
    params.not_before = now - CALENDAR_SLACK;
    params.not_after = now + length;
}

/// The directory, while the lock is held.
struct Directory<'a> {
    dir: &'a Path,
    now: WallTime,
}

/// The CA as far as it is here: its key may be kept elsewhere once all certificates are issued.
struct LocalCa {
    cert_pem: String,
    key_pem: Option<String>,
}

impl Directory<'_> {
    fn ensure_ca(&self) -> Result<LocalCa, CertsError> {
        let (cert_path, key_path) = (self.dir.join("ca.pem"), self.dir.join("ca.key"));
        let (cert_pem, key_pem) = (read(&cert_path)?, read(&key_path)?);
        let cert_pem = match cert_pem {
            Some(cert_pem) => cert_pem,
            None => {
                let key = self.key_or_new(&key_path, key_pem.as_deref())?;
                let ca = sign_ca(&key, self.now)?;
                self.put("ca.pem", &ca.cert_pem, 0o644)?;
                return Ok(LocalCa { cert_pem: ca.cert_pem, key_pem: Some(ca.key_pem) });
            }
        };
        let Some(key_pem) = key_pem else { return Ok(LocalCa { cert_pem, key_pem: None }) };
        let ca = Issued { cert_pem, key_pem };
        self.check_ca(&ca, &cert_path, &key_path)?;
        Ok(LocalCa { cert_pem: ca.cert_pem, key_pem: Some(ca.key_pem) })
    }

    /// Signs a trial certificate, which shows all that can be wrong with a CA and its key.
    fn check_ca(&self, ca: &Issued, cert_path: &Path, key_path: &Path) -> Result<(), CertsError> {
        let broken = |path: &Path, reason: String| CertsError::Broken { path: path.to_owned(), reason };
        let key =
            KeyPair::from_pem(&ca.key_pem).map_err(|error| broken(key_path, format!("no private key ({error})")))?;
        Issuer::from_ca_cert_pem(&ca.cert_pem, key)
            .map_err(|error| broken(cert_path, format!("no certificate ({error})")))?;
        let trial = issue_client(ca, "trial", self.now)?;
        match Credentials::from_pem(&ca.cert_pem, &trial.cert_pem, &trial.key_pem, self.now) {
            Ok(_) => Ok(()),
            Err(CredentialsError::NotSignedByCa { .. }) => {
                Err(broken(key_path, "the key does not belong to ca.pem beside it, or that is no CA's".to_owned()))
            }
            Err(error) => Err(broken(cert_path, error.to_string())),
        }
    }

    fn ensure_leaf(&self, ca: &LocalCa, subject: &Subject) -> Result<CertFiles, CertsError> {
        let stem = subject.file_stem();
        let files = CertFiles { cert: self.dir.join(format!("{stem}.pem")), key: self.dir.join(format!("{stem}.key")) };
        let (cert_pem, key_pem) = (read(&files.cert)?, read(&files.key)?);
        if cert_pem.is_none() {
            let ca = self.signing(ca)?;
            let key = self.key_or_new(&files.key, key_pem.as_deref())?;
            let issued = sign_leaf(&ca, subject, &key, self.now)?;
            self.put(&format!("{stem}.pem"), &issued.cert_pem, 0o644)?;
        }
        let loaded = Credentials::from_pem_files(&self.dir.join("ca.pem"), &files.cert, &files.key, self.now)?;
        if *loaded.identity() != subject.identity() {
            let reason = format!("names {:?}, not {:?}", loaded.identity(), subject.identity());
            return Err(CertsError::Broken { path: files.cert, reason });
        }
        Ok(files)
    }

    fn signing(&self, ca: &LocalCa) -> Result<Issued, CertsError> {
        let Some(key_pem) = ca.key_pem.clone() else {
            let reason = "is missing, and a certificate has to be issued; put it beside ca.pem".to_owned();
            return Err(CertsError::Broken { path: self.dir.join("ca.key"), reason });
        };
        Ok(Issued { cert_pem: ca.cert_pem.clone(), key_pem })
    }

    /// The existing key, or a new one that has been written.
    fn key_or_new(&self, path: &Path, existing: Option<&str>) -> Result<KeyPair, CertsError> {
        if let Some(pem) = existing {
            return KeyPair::from_pem(pem).map_err(|error| CertsError::Broken {
                path: path.to_owned(),
                reason: format!("holds no private key ({error})"),
            });
        }
        let key = KeyPair::generate()?;
        let name = path.file_name().expect("the path was joined from a name").to_string_lossy();
        self.put(&name, &key.serialize_pem(), 0o600)?;
        Ok(key)
    }

    /// Writes a new file: temporary name, sync, rename without replacing, sync of the directory.
    fn put(&self, name: &str, text: &str, mode: u32) -> Result<(), CertsError> {
        let (temporary, path) = (self.dir.join(format!(".{name}.new")), self.dir.join(name));
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(&temporary, "removed")(error)),
            _ => {} // it was left by a process that was killed; the lock says that nobody writes it now
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .map_err(io(&temporary, "created"))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io(&temporary, "written"))?;
        renameat_with(CWD, &temporary, CWD, &path, RenameFlags::NOREPLACE)
            .map_err(|errno| io(&path, "put in place")(errno.into()))?;
        File::open(self.dir).and_then(|dir| dir.sync_all()).map_err(io(self.dir, "synced"))
    }
}

/// Takes the lock of `dir`; it is released when the file is dropped, also by the death of the process.
fn lock(dir: &Path) -> Result<File, CertsError> {
    /// Making all certificates takes milliseconds; a process that needs this long hangs.
    const ATTEMPTS_MAX: u32 = 500;
    const PAUSE: Duration = Duration::from_millis(20);
    let path = dir.join(".lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io(&path, "opened"))?;
    for _ in 0..ATTEMPTS_MAX {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(PAUSE),
            Err(errno) => return Err(io(&path, "locked")(errno.into())),
        }
    }
    Err(CertsError::Locked { path, waited: PAUSE * ATTEMPTS_MAX })
}

fn read(path: &Path) -> Result<Option<String>, CertsError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(path, "read")(error)),
    }
}

fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> CertsError {
    let path = path.to_owned();
    move |source| CertsError::Io { path, action, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: WallTime = WallTime(1_800_000_000_000_000); // 2027-01-15
    const YEAR: i64 = 365 * 86_400_000_000;

    fn load(dir: &Path, files: &CertFiles, now: WallTime) -> Result<Credentials, CredentialsError> {
        Credentials::from_pem_files(&dir.join("ca.pem"), &files.cert, &files.key, now)
    }

    fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
        let entry = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        };
        std::fs::read_dir(dir).unwrap().map(entry).collect()
    }

    #[test]
    fn what_is_issued_proves_its_identity_for_a_year() {
        let ca = issue_ca(NOW).unwrap();
        let node = issue_node(&ca, 7, NOW).unwrap();
        let client = issue_client(&ca, "anna", NOW).unwrap();
        let load = |issued: &Issued, now| Credentials::from_pem(&ca.cert_pem, &issued.cert_pem, &issued.key_pem, now);
        assert_eq!(*load(&node, NOW).unwrap().identity(), PeerIdentity::Node(7));
        assert_eq!(*load(&client, NOW).unwrap().identity(), PeerIdentity::Client("anna".into()));
        assert!(matches!(load(&node, WallTime(NOW.0 + YEAR + 1_000_000)), Err(CredentialsError::Expired { .. })));
        assert!(load(&node, WallTime(NOW.0 - 3_000_000_000)).is_ok(), "calendars may differ by some minutes");
    }

    #[test]
    fn a_directory_is_filled_once_and_then_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = ensure_local(dir.path(), Some(1), &["anna"], NOW).unwrap();
        let files = contents(dir.path());
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        let expected = [".lock", "ca.key", "ca.pem", "client-anna.key", "client-anna.pem", "node-1.key", "node-1.pem"];
        assert_eq!(names, expected);
        for (name, mode) in [("ca.key", 0o600), ("node-1.key", 0o600), ("client-anna.key", 0o600), ("ca.pem", 0o644)] {
            let found = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found & !mode, 0, "{name} has mode {found:o}");
        }
        assert_eq!(ensure_local(dir.path(), Some(1), &["anna"], NOW).unwrap(), first);
        ensure_local(dir.path(), Some(2), &["bert"], NOW).unwrap();
        let after = contents(dir.path());
        assert!(files.iter().all(|(name, bytes)| after[name] == *bytes), "an existing file was changed");
        assert!(load(dir.path(), &first.node.unwrap(), NOW).is_ok());
    }

    #[test]
    fn eight_threads_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (dir, start) = (dir.path(), &start);
                scope.spawn(move || {
                    start.wait();
                    let certs = ensure_local(dir, Some(thread % 4), &["anna"], NOW).unwrap();
                    assert!(load(dir, &certs.node.unwrap(), NOW).is_ok());
                    assert!(load(dir, &certs.clients["anna"], NOW).is_ok());
                });
            }
        });
        let certs = ensure_local(dir.path(), Some(0), &["anna"], NOW).unwrap();
        assert!(load(dir.path(), &certs.clients["anna"], NOW).is_ok());
        assert_eq!(contents(dir.path()).len(), 1 + 2 + 2 * 4 + 2, "temporary files were left behind");
    }

    #[test]
    fn a_run_that_was_killed_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        ensure_local(dir.path(), Some(1), &[], NOW).unwrap();
        let key = std::fs::read(dir.path().join("node-1.key")).unwrap();
        // Killed between the key and its certificate, in the midst of writing the latter.
        std::fs::remove_file(dir.path().join("node-1.pem")).unwrap();
        std::fs::write(dir.path().join(".node-1.pem.new"), "-----BEGIN CERT").unwrap();
        let certs = ensure_local(dir.path(), Some(1), &[], NOW).unwrap();
        assert!(load(dir.path(), &certs.node.unwrap(), NOW).is_ok());
        assert_eq!(std::fs::read(dir.path().join("node-1.key")).unwrap(), key);
        assert!(!dir.path().join(".node-1.pem.new").exists());
    }

    #[test]
    fn a_broken_file_is_named_and_kept() {
        for name in ["ca.pem", "ca.key", "node-1.pem", "node-1.key"] {
            let dir = tempfile::tempdir().unwrap();
            ensure_local(dir.path(), Some(1), &[], NOW).unwrap();
            std::fs::write(dir.path().join(name), "garbage").unwrap();
            let error = ensure_local(dir.path(), Some(1), &[], NOW).unwrap_err().to_string();
            assert!(error.contains(&dir.path().join(name).display().to_string()), "{name}: {error}");
            assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), b"garbage");
        }
    }

    #[test]
    fn pairs_that_do_not_fit_are_refused() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&dir, &other] {
            ensure_local(dir.path(), Some(1), &["anna"], NOW).unwrap();
        }
        let copy = |from: &Path, name: &str, to: &str| {
            std::fs::copy(from.join(name), dir.path().join(to)).unwrap();
        };
        let fault = || ensure_local(dir.path(), Some(1), &["anna"], NOW).unwrap_err().to_string();
        copy(other.path(), "ca.key", "ca.key");
        assert!(fault().contains("does not belong to ca.pem"), "{}", fault());
        copy(other.path(), "ca.pem", "ca.pem");
        assert!(fault().contains("not signed by the CA"), "{}", fault());
        copy(other.path(), "node-1.pem", "node-1.pem");
        assert!(fault().contains("does not match"), "{}", fault());
        copy(other.path(), "client-anna.pem", "node-1.pem");
        copy(other.path(), "client-anna.key", "node-1.key");
        assert!(fault().contains("names Client"), "{}", fault());
    }

    #[test]
    fn the_cas_key_may_be_away_until_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        ensure_local(dir.path(), Some(1), &[], NOW).unwrap();
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        ensure_local(dir.path(), Some(1), &[], NOW).unwrap();
        let error = ensure_local(dir.path(), Some(2), &[], NOW).unwrap_err().to_string();
        assert!(error.contains("ca.key: is missing"), "{error}");
    }

    #[test]
    fn a_principal_is_a_plain_name() {
        let ca = issue_ca(NOW).unwrap();
        for bad in ["", ".hidden", "a/b", "../x", "a b", "ä", &"x".repeat(PRINCIPAL_BYTES_MAX + 1)] {
            assert!(matches!(issue_client(&ca, bad, NOW), Err(CertsError::BadPrincipal { .. })), "{bad:?}");
        }
        let longest = "x".repeat(PRINCIPAL_BYTES_MAX);
        let issued = issue_client(&ca, &longest, NOW).unwrap();
        assert!(Credentials::from_pem(&ca.cert_pem, &issued.cert_pem, &issued.key_pem, NOW).is_ok());
    }
}
