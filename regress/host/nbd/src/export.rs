//! An NBD connection: a dm device's block node, open as long as the connection.

use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, Weak};

use dm_host::Errno;
use nbdkit::{Error, Flags, FuaFlags, Result, Server, ThreadModel};

use crate::config;
use crate::server::{self, Kernel, Node};

/// What nbdkit holds for a connection.
pub struct Export {
    connection: Arc<Connection>,
}

/// A connection's device, which the end of the server takes away.
pub struct Connection {
    node: RwLock<Option<Node>>,
    size: u64,
    sector_size: u32,
    writable: bool,
}

/// All connections there are.
static OPEN: Mutex<Vec<Weak<Connection>>> = Mutex::new(Vec::new());

/// Kept for reading by whole-sector writes, and for writing by those that change part of a
/// sector: they read it first, and nobody may write it meanwhile.
static PARTS: RwLock<()> = RwLock::new(());

/// Closes the devices of all connections, after the I/O that is under way.
pub fn close_all() {
    let open = std::mem::take(&mut *OPEN.lock().unwrap_or_else(|e| e.into_inner()));
    for connection in open.iter().filter_map(Weak::upgrade) {
        connection.node.write().unwrap_or_else(|e| e.into_inner()).take();
    }
}

/// An error for nbdkit, which knows the system's numbers, not NetBSD's.
fn error(what: &str, errno: Errno) -> Error {
    let number = match errno {
        Errno::EPERM | Errno::EROFS => libc::EPERM,
        Errno::ENOMEM => libc::ENOMEM,
        Errno::EINVAL => libc::EINVAL,
        Errno::ENOSPC => libc::ENOSPC,
        Errno::ENXIO => libc::ESHUTDOWN,
        Errno::ENODEV | Errno::EOPNOTSUPP => libc::EOPNOTSUPP,
        _ => libc::EIO,
    };
    Error::new(number, format!("{what}: {} ({})", errno.text(), errno.name().unwrap_or("?")))
}

impl Export {
    /// Bytes in a sector.
    pub fn sector_size(&self) -> u32 {
        self.connection.sector_size
    }

    fn node(&self) -> Result<Open<'_>> {
        let node = self.connection.node.read().unwrap_or_else(|e| e.into_inner());
        match node.is_some() {
            true => Ok(Open(node)),
            false => Err(Error::new(libc::ESHUTDOWN, "the server is ending")),
        }
    }

    /// The sectors around a range: where they begin, and how many bytes they are.
    fn around(&self, offset: u64, length: usize) -> (u64, usize) {
        let size = u64::from(self.connection.sector_size);
        let start = offset - offset % size;
        let end = (offset.saturating_add(length as u64)).next_multiple_of(size);
        (start, usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX))
    }
}

struct Open<'a>(RwLockReadGuard<'a, Option<Node>>);

impl Open<'_> {
    fn with<R>(
        &self,
        what: &str,
        f: impl FnOnce(&Node) -> std::result::Result<R, Errno>,
    ) -> Result<R> {
        let result = self.0.as_ref().map_or(Err(Errno::ENXIO), f);
        result.map_err(|errno| error(what, errno))
    }
}

impl Server for Export {
    fn name() -> &'static str {
        "dm-host"
    }

    fn longname() -> Option<&'static str> {
        Some("NetBSD's dm(4), hosted")
    }

    fn version() -> Option<&'static str> {
        Some(env!("CARGO_PKG_VERSION"))
    }

    fn description() -> Option<&'static str> {
        Some("Serves the devices of a hosted NetBSD kernel's device mapper. See dm-host(8).")
    }

    fn config(key: &str, value: &str) -> Result<()> {
        config::set(key, value)
    }

    fn config_complete() -> Result<()> {
        Ok(())
    }

    fn thread_model() -> Result<ThreadModel> {
        Ok(ThreadModel::Parallel)
    }

    fn after_fork() -> Result<()> {
        server::start(&config::get())
    }

    fn open(read_only: bool) -> Result<Box<dyn Server>> {
        let kernel = server::kernel().ok_or(Error::new(libc::ESHUTDOWN, "the server is ending"))?;
        let name = nbdkit::export_name().map_err(|e| Error::new(libc::EINVAL, e.to_string()))?;
        let name = if name.is_empty() { only(&kernel)? } else { name };
        let node = kernel.open(&name, read_only).map_err(|errno| error(&name, errno))?;
        let connection = Arc::new(Connection {
            size: node.size().map_err(|errno| error(&name, errno))?,
            sector_size: node.sector_size(),
            writable: node.is_writable(),
            node: RwLock::new(Some(node)),
        });
        let mut open = OPEN.lock().unwrap_or_else(|e| e.into_inner());
        open.retain(|other| other.strong_count() > 0);
        open.push(Arc::downgrade(&connection));
        Ok(Box::new(Export { connection }))
    }

    fn get_size(&self) -> Result<i64> {
        i64::try_from(self.connection.size).map_err(|_| Error::new(libc::EOVERFLOW, "too large"))
    }

    fn can_write(&self) -> Result<bool> {
        Ok(self.connection.writable)
    }

    fn can_flush(&self) -> Result<bool> {
        Ok(true)
    }

    fn can_fua(&self) -> Result<FuaFlags> {
        Ok(FuaFlags::Native)
    }

    fn can_trim(&self) -> Result<bool> {
        Ok(true)
    }

    /// DIOCCACHESYNC on one node syncs what was written through all of them.
    fn can_multi_conn(&self) -> Result<bool> {
        Ok(true)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let node = self.node()?;
        let (start, length) = self.around(offset, buf.len());
        if start == offset && length == buf.len() {
            return node.with("read", |node| node.read(buf, offset));
        }
        let mut sectors = vec![0; length];
        node.with("read", |node| node.read(&mut sectors, start))?;
        let skip = usize::try_from(offset - start).unwrap_or(usize::MAX);
        let part = sectors.get(skip..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(part.ok_or_else(|| error("read", Errno::EINVAL))?);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64, flags: Flags) -> Result<()> {
        let node = self.node()?;
        let fua = flags.contains(Flags::FUA);
        let (start, length) = self.around(offset, buf.len());
        if start == offset && length == buf.len() {
            let _whole = PARTS.read().unwrap_or_else(|e| e.into_inner());
            return node.with("write", |node| node.write(buf, offset, fua));
        }
        let _part = PARTS.write().unwrap_or_else(|e| e.into_inner());
        let mut sectors = vec![0; length];
        node.with("write", |node| node.read(&mut sectors, start))?;
        let skip = usize::try_from(offset - start).unwrap_or(usize::MAX);
        let part = sectors.get_mut(skip..).and_then(|rest| rest.get_mut(..buf.len()));
        part.ok_or_else(|| error("write", Errno::EINVAL))?.copy_from_slice(buf);
        node.with("write", |node| node.write(&sectors, start, fua))
    }

    fn flush(&self) -> Result<()> {
        self.node()?.with("flush", Node::flush)
    }

    /// Whole sectors only: what is cut off at either end keeps its data, which trim allows.
    fn trim(&self, count: u32, offset: u64, flags: Flags) -> Result<()> {
        let node = self.node()?;
        let size = u64::from(self.connection.sector_size);
        let start = offset.next_multiple_of(size);
        let end = offset.saturating_add(u64::from(count));
        let end = end - end % size;
        if start < end {
            let _whole = PARTS.read().unwrap_or_else(|e| e.into_inner());
            node.with("trim", |node| node.discard(start, end - start))?;
        }
        match flags.contains(Flags::FUA) {
            true => node.with("trim", Node::flush),
            false => Ok(()),
        }
    }
}

/// The device meant by an export without a name: the only one, if there is only one.
fn only(kernel: &Kernel) -> Result<String> {
    let mut names = kernel.names().map_err(|errno| error("names", errno))?;
    match (names.pop(), names.is_empty()) {
        (Some(name), true) => Ok(name),
        _ => Err(Error::new(libc::ENOENT, "name a device: there is not exactly one")),
    }
}
