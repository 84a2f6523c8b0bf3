//! What nbdkit sees: the crate's plugin, and the callbacks that the crate leaves out.

use std::ffi::{CString, c_char, c_int, c_void};

use nbdkit::{Builder, Plugin, Server};

use crate::export::Export;
use crate::server;

/// nbdkit's `struct nbdkit_plugin` up to `block_size`: what the crate knows, and what came later.
#[repr(C)]
struct Extended {
    known: Plugin,
    list_exports: extern "C" fn(c_int, c_int, *mut c_void) -> c_int,
    default_export: Option<extern "C" fn(c_int, c_int) -> *const c_char>,
    export_description: Option<extern "C" fn(*mut c_void) -> *const c_char>,
    cleanup: extern "C" fn(),
    block_size: extern "C" fn(*mut c_void, *mut u32, *mut u32, *mut u32) -> c_int,
}

unsafe extern "C" {
    fn nbdkit_add_export(
        exports: *mut c_void,
        name: *const c_char,
        description: *const c_char,
    ) -> c_int;
}

/// nbdkit asks for the plugin once, after loading it.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_init() -> *const c_void {
    let mut builder = Builder::new();
    builder.config = true;
    builder.config_complete = true;
    builder.thread_model = true;
    builder.after_fork = true;
    builder.can_write = true;
    builder.can_flush = true;
    builder.can_fua = true;
    builder.can_trim = true;
    builder.can_multi_conn = true;
    builder.write_at = true;
    builder.flush = true;
    builder.trim = true;
    let known = builder.into_ptr::<Export>();
    // SAFETY: the crate leaks a whole Plugin for nbdkit to keep; nobody else looks at it, and its
    // fields are numbers and pointers that may be copied.
    let mut known = unsafe { known.read() };
    known._struct_size = size_of::<Extended>() as u64;
    let extended = Extended {
        known,
        list_exports,
        default_export: None,
        export_description: None,
        cleanup,
        block_size,
    };
    // nbdkit keeps it until the process ends.
    Box::into_raw(Box::new(extended)).cast_const().cast()
}

extern "C" fn list_exports(_read_only: c_int, _tls: c_int, exports: *mut c_void) -> c_int {
    let names = server::kernel().and_then(|kernel| kernel.names().ok()).unwrap_or_default();
    for name in names {
        let Ok(name) = CString::new(name) else { continue };
        // SAFETY: `exports` is nbdkit's, for the time of this call; it copies the name.
        if unsafe { nbdkit_add_export(exports, name.as_ptr(), std::ptr::null()) } != 0 {
            return -1;
        }
    }
    0
}

/// Called once, when nbdkit has let go of all connections it could let go of.
extern "C" fn cleanup() {
    server::end();
}

/// The least, the best and the largest size of a request.
extern "C" fn block_size(
    handle: *mut c_void,
    least: *mut u32,
    best: *mut u32,
    largest: *mut u32,
) -> c_int {
    // SAFETY: a handle is what `Export::open` returned, boxed once more by the crate; all handles
    // of this plugin are Exports. nbdkit gives three places for numbers.
    unsafe {
        let server: &dyn Server = (*handle.cast::<Box<dyn Server>>()).as_ref();
        let export = &*std::ptr::from_ref(server).cast::<Export>();
        *least = export.sector_size();
        *best = export.sector_size().max(4096);
        *largest = 32 << 20;
    }
    0
}
