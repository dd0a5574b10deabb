//! The check sum over a Parquet file's pages, which are decoded only if it is right: the library's decoders may panic at damaged ones.

use std::io::{self, Read};

/// Bytes from the start of a file, and their CRC-32.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    bytes: u64,
    crc: crc32fast::Hasher,
}

impl Pages {
    /// Adds the next bytes.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.crc.update(bytes);
    }

    /// As it is written: how many bytes, and their sum in hexadecimal.
    pub(super) fn text(&self) -> String {
        format!("{} {:08x}", self.bytes, self.crc.clone().finalize())
    }

    /// Compares `text` with the bytes of `file`, from its start on. Gives how many there are.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn check(text: &str, file: &mut impl Read) -> Result<u64, String> {
        let bytes = text.split(' ').next().and_then(|bytes| bytes.parse().ok());
        let bytes: u64 =
            bytes.ok_or_else(|| format!("pages: expected bytes and their sum, found {text:?}"))?;
        let (mut found, mut file, mut buffer) = (Self::default(), file.take(bytes), vec![0; 1 << 16]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => found.add(&buffer[..read]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("pages: {e}")),
            }
        }
        if found.text() == text {
            Ok(bytes)
        } else {
            Err(format!("pages: expected {text:?}, found {:?}", found.text()))
        }
    }
}
