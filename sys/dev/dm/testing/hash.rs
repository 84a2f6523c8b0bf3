// SPDX-License-Identifier: BSD-2-Clause

//! Hash functions for tests, from RustCrypto's crates.

use core::marker::PhantomData;

use md5::Md5;
use ripemd::Ripemd160;
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};

use crate::hash::{Digest, Hash};

/// A hash function of RustCrypto's, with the name that a table gives it.
struct Of<D>(&'static str, PhantomData<fn() -> D>);

impl<D: sha2::Digest> Hash for Of<D> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn size(&self) -> usize {
        <D as sha2::Digest>::output_size()
    }

    fn digest(&self, parts: &[&[u8]], digest: &mut Digest) {
        let mut hash = D::new();
        parts.iter().for_each(|part| hash.update(part));
        digest[..self.size()].copy_from_slice(&hash.finalize());
    }
}

/// The hash function of this name, if there is one.
pub fn find(name: &str) -> Option<&'static dyn Hash> {
    static ALL: [&dyn Hash; 7] = [
        &Of::<Md5>("md5", PhantomData),
        &Of::<Ripemd160>("rmd160", PhantomData),
        &Of::<Sha1>("sha1", PhantomData),
        &Of::<Sha224>("sha224", PhantomData),
        &Of::<Sha256>("sha256", PhantomData),
        &Of::<Sha384>("sha384", PhantomData),
        &Of::<Sha512>("sha512", PhantomData),
    ];
    ALL.into_iter().find(|hash| hash.name() == name)
}
