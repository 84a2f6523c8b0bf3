// SPDX-License-Identifier: BSD-2-Clause

//! The clock that targets keep.

use alloc::sync::Arc;

/// A clock that counts seconds, for targets that change with time. It may be read from anywhere.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u32 + Send + Sync>);

impl Clock {
    /// A clock that reads as `seconds` says.
    pub fn new(seconds: impl Fn() -> u32 + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(seconds))
    }

    /// Seconds since some moment; they wrap around.
    pub fn seconds(&self) -> u32 {
        (self.0)()
    }
}
