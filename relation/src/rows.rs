//! Reads the rows of a page: checks it, judges its tuples, finds the column, unpacks the value, hands it to a sink.
//!
//! Promises
//! - A row is handed out only after its whole page and then its whole tuple were checked.
//! - Damage goes to [`RowSink::damaged`] with its place; what is left of the page is handed out only if the sink says `Ok`
//!   and the damage was of one tuple. Nothing is left out silently: every tuple of a good page is in one of the counts.
//! - No allocation for a tuple that lies whole in its page; buffers for the others are kept and reused.
//!
//! What it does not do: read files or know bases; a value is a string of bits here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::buffer::PageBuffer;
use crate::error::{Error, ErrorKind, Extent, Result, value_error};
use crate::page::{Checked, Page};
use crate::schema::{DnaType, TupleDesc};
use crate::toast::{READ_AHEAD, Toast};
use crate::tuple::{Datum, Walker};
use crate::varlena::{self, Compressed, Method, Pointer, Varlena};
use crate::visibility::{HINT_BITS, HintBitsOnly, Oracle, Stamps, Unhinted, Verdict};
use crate::{pglz, varbit};

/// A buffer that grew beyond this is given back after its page.
const KEEP_BYTES: usize = 16 << 20;

/// How to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadOptions {
    /// Whether pages must carry the right checksum.
    pub verify_checksums: bool,
    /// What to do with tuples whose hint bits do not say whether they count.
    pub unhinted: Unhinted,
}

/// The value of the column in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// A bit string: `bits` of them in `bytes`, the first in the highest bit; exactly as many bytes as needed, and the bits
    /// behind the last are zero.
    Bits {
        /// The number of bits.
        bits: u32,
        /// The bytes that hold them.
        bytes: &'a [u8],
    },
}

/// Takes rows.
pub trait RowSink {
    /// A visible row of the page, at line pointer `item`.
    ///
    /// # Errors
    /// Whatever shall end the reading; it comes back from [`PageReader::read_page`].
    fn row(&mut self, item: u16, value: Value<'_>) -> Result<(), Error>;

    /// Something is damaged; [`Error::extent`] says how much. `Ok` goes on behind it.
    ///
    /// # Errors
    /// As for [`RowSink::row`]; mostly the error itself.
    fn damaged(&mut self, error: Error) -> Result<(), Error>;
}

/// What was seen on the pages read. Sums of pages may be added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PageCounts {
    /// Pages looked at, good or not.
    pub pages: u64,
    /// Pages of zeros.
    pub zero_pages: u64,
    /// Pages given up as a whole.
    pub damaged_pages: u64,
    /// Visible tuples handed to the sink (NULLs included).
    pub live: u64,
    /// Tuples that do not count: aborted or deleted.
    pub dead: u64,
    /// Tuples whose hint bits leave it open. Under [`Unhinted::Visible`] they are counted as live, too, and under
    /// [`Unhinted::Error`] as damaged.
    pub undecided: u64,
    /// Live rows whose value is NULL.
    pub nulls: u64,
    /// Live rows older than the column.
    pub missing: u64,
    /// Live rows whose value was compressed in its page or in the TOAST relation.
    pub compressed: u64,
    /// Live rows whose value came from the TOAST relation.
    pub external: u64,
    /// Tuples given up.
    pub damaged_tuples: u64,
}

impl PageCounts {
    /// Adds other counts to these.
    pub fn add(&mut self, other: &Self) {
        self.pages += other.pages;
        self.zero_pages += other.zero_pages;
        self.damaged_pages += other.damaged_pages;
        self.live += other.live;
        self.dead += other.dead;
        self.undecided += other.undecided;
        self.nulls += other.nulls;
        self.missing += other.missing;
        self.compressed += other.compressed;
        self.external += other.external;
        self.damaged_tuples += other.damaged_tuples;
    }
}

impl std::ops::AddAssign for PageCounts {
    fn add_assign(&mut self, other: Self) {
        self.add(&other);
    }
}

/// Reads the pages of one relation, one column of it.
#[derive(Debug)]
pub struct PageReader {
    walker: Walker,
    missing: Option<Vec<u8>>,
    options: ReadOptions,
    file: PathBuf,
    oracle: Arc<dyn Oracle>,
    unpack: Unpack,
    base_bits: u32,
}

impl PageReader {
    /// A reader of column `column` (an index from 0, see [`TupleDesc::column`]). `file` names the relation in messages;
    /// `toast` is needed once a value lies outside.
    ///
    /// # Errors
    /// [`ErrorKind::Columns`] if there is no such column or it is not of variable length, [`ErrorKind::Value`] if its
    /// `missing` value is no bit string.
    pub fn new(
        desc: &TupleDesc,
        column: usize,
        options: ReadOptions,
        file: &Path,
        toast: Option<Arc<Toast>>,
    ) -> Result<Self> {
        let walker = Walker::new(desc, column)?;
        let attribute = desc.attributes.get(column);
        if attribute.is_none_or(|a| a.len != crate::AttLen::Varlena || a.dropped) {
            let text = format!("column {:?}: expected a bit string type", walker.column_name());
            return Err(Error::new(ErrorKind::Columns(text)));
        }
        let missing = attribute.and_then(|a| a.missing.clone());
        if let Some(payload) = &missing {
            varbit::parse(payload).map_err(|e| e.at_attribute(walker.column_name()))?;
        }
        Ok(Self {
            walker,
            missing,
            options,
            file: file.to_path_buf(),
            oracle: Arc::new(HintBitsOnly),
            unpack: Unpack { toast, verify: options.verify_checksums, ..Unpack::default() },
            base_bits: 1,
        })
    }

    /// The same reader for values of bases: one that ends within a base (a plain `varbit` can) is damaged.
    #[must_use]
    pub fn with_bases(mut self, dna: DnaType) -> Self {
        self.base_bits = dna.bits();
        self
    }

    /// The same reader with an oracle that knows more than the hint bits.
    #[must_use]
    pub fn with_oracle(mut self, oracle: Arc<dyn Oracle>) -> Self {
        self.oracle = oracle;
        self
    }

    /// Reads page `block` of the relation, 8192 bytes.
    ///
    /// # Errors
    /// What the sink gives, and errors that make the whole relation unusable. Damage of less extent goes to the sink.
    pub fn read_page(
        &mut self,
        page: &[u8],
        block: u32,
        counts: &mut PageCounts,
        sink: &mut (impl RowSink + ?Sized),
    ) -> Result<()> {
        counts.pages += 1;
        let page = match Page::check(page, block, self.options.verify_checksums) {
            Ok(Checked::Page(page)) => page,
            Ok(Checked::Zero) => {
                counts.zero_pages += 1;
                return Ok(());
            }
            Err(error) => {
                counts.damaged_pages += 1;
                return sink.damaged(error.at_block(block).in_file(&self.file));
            }
        };
        for item in page.items() {
            let mut form = Form::default();
            let value = match self.judge(item.tuple, page.all_visible(), counts) {
                Ok(false) => continue,
                Ok(true) => self.value(item.tuple, &mut form),
                Err(error) => Err(error),
            };
            match value {
                Ok(value) => {
                    sink.row(item.number, value)?;
                    counts.live += 1;
                    counts.nulls += u64::from(value == Value::Null);
                    form.count(counts);
                }
                Err(error) => self.give_up(error, block, item.number, counts, sink)?,
            }
        }
        self.unpack.give_back();
        Ok(())
    }

    /// Whether the tuple counts as a row.
    #[inline]
    fn judge(&self, tuple: &[u8], all_visible: bool, counts: &mut PageCounts) -> Result<bool> {
        let Some(stamps) = Stamps::read(tuple) else { return Ok(false) };
        match stamps.judge(&*self.oracle) {
            Verdict::Visible => Ok(true),
            Verdict::Invisible => {
                counts.dead += 1;
                Ok(false)
            }
            Verdict::Undecided if all_visible => Ok(true),
            Verdict::Undecided => {
                counts.undecided += 1;
                match self.options.unhinted {
                    Unhinted::Visible => Ok(true),
                    Unhinted::Skip => Ok(false),
                    Unhinted::Error => Err(undecided_error(stamps, &*self.oracle)),
                }
            }
        }
    }

    /// The column's value in a tuple, unpacked.
    #[inline]
    fn value<'a>(&'a mut self, tuple: &'a [u8], form: &mut Form) -> Result<Value<'a>> {
        let (walker, base_bits) = (&self.walker, self.base_bits);
        if let Some(payload) = walker.short_value(tuple) {
            return bits(walker, base_bits, Ok(payload));
        }
        let payload = match walker.datum(tuple)? {
            Datum::Null => return Ok(Value::Null),
            Datum::Missing => {
                form.missing = true;
                match &self.missing {
                    Some(payload) => Ok(payload.as_slice()),
                    None => return Ok(Value::Null),
                }
            }
            Datum::Bytes(bytes) => self.unpack.payload(bytes, form),
        };
        bits(walker, base_bits, payload)
    }

    #[cold]
    fn give_up(
        &self,
        error: Error,
        block: u32,
        item: u16,
        counts: &mut PageCounts,
        sink: &mut (impl RowSink + ?Sized),
    ) -> Result<()> {
        let error = error.at_block(block).at_item(item).in_file(&self.file);
        if error.extent() == Extent::Relation {
            return Err(error);
        }
        counts.damaged_tuples += 1;
        sink.damaged(error)
    }
}

/// The bit string that `payload` is, of bases of `base_bits` bits each.
#[inline]
fn bits<'a>(walker: &Walker, base_bits: u32, payload: Result<&'a [u8]>) -> Result<Value<'a>> {
    match payload.and_then(varbit::parse) {
        // A base has a power of two of bits.
        Ok((bits, bytes)) if bits & (base_bits - 1) == 0 => Ok(Value::Bits { bits, bytes }),
        Ok((bits, _)) => {
            let expected = format!("a multiple of {base_bits} bits, as many as a base has");
            Err(value_error("bit string", expected, bits).at_attribute(walker.column_name()))
        }
        Err(error) => Err(error.at_attribute(walker.column_name())),
    }
}

/// How a value lay in its tuple, for the counts.
#[derive(Debug, Clone, Copy, Default)]
struct Form {
    missing: bool,
    compressed: bool,
    external: bool,
}

impl Form {
    #[inline]
    fn count(self, counts: &mut PageCounts) {
        counts.missing += u64::from(self.missing);
        counts.compressed += u64::from(self.compressed);
        counts.external += u64::from(self.external);
    }
}

#[cold]
pub(crate) fn undecided_error(stamps: Stamps, oracle: &dyn Oracle) -> Error {
    let (xid, witness) = (stamps.open_xid(oracle), oracle.witness());
    let hint = if witness == HINT_BITS {
        "let the server set the hint bits (SELECT count(*) or VACUUM on the table, then CHECKPOINT), or choose --unhinted"
    } else {
        "pg_xact or the tuple is damaged, or they are not of one moment; --unhinted chooses what to do with such tuples"
    };
    Error::new(ErrorKind::Undecided { witness, xid }).with_hint(hint)
}

/// Unpacks values, with buffers that are kept from tuple to tuple.
#[derive(Debug, Default)]
struct Unpack {
    toast: Option<Arc<Toast>>,
    verify: bool,
    pages: Option<PageBuffer>,
    stored: Vec<u8>,
    raw: Vec<u8>,
}

impl Unpack {
    /// The value's bytes without any header, wherever they lie and however they are packed.
    #[inline]
    fn payload<'a>(&'a mut self, bytes: &'a [u8], form: &mut Form) -> Result<&'a [u8]> {
        match varlena::parse(bytes)? {
            Varlena::Plain(payload) => Ok(payload),
            Varlena::Compressed(compressed) => {
                form.compressed = true;
                decompress(&compressed, &mut self.raw)
            }
            Varlena::External(pointer) => self.external(&pointer, form),
        }
    }

    fn external(&mut self, pointer: &Pointer, form: &mut Form) -> Result<&[u8]> {
        form.external = true;
        let Some(toast) = &self.toast else {
            let (value_id, toast_relid) = (pointer.value_id, pointer.toast_relid);
            return Err(Error::new(ErrorKind::NoToast { value_id, toast_relid }).with_hint(format!(
                "give the file of the toast relation, oid {toast_relid}, with --toast FILE"
            )));
        };
        let pages = self.pages.get_or_insert_with(|| PageBuffer::new(READ_AHEAD));
        toast.fetch(pointer, self.verify, pages, &mut self.stored)?;
        let Some(method) = pointer.method else { return Ok(&self.stored) };
        form.compressed = true;
        let compressed = Compressed::parse(&self.stored)?;
        if (compressed.method, compressed.raw_size) != (method, pointer.raw_size) {
            let expected = format!("{method:?} data of {} bytes, as its pointer says", pointer.raw_size);
            let found = format!("{:?} data of {} bytes", compressed.method, compressed.raw_size);
            return Err(value_error("toast value", expected, found));
        }
        decompress(&compressed, &mut self.raw)
    }

    /// Frees what a very large value left behind.
    fn give_back(&mut self) {
        for buffer in [&mut self.stored, &mut self.raw] {
            if buffer.capacity() > KEEP_BYTES {
                *buffer = Vec::new();
            }
        }
    }
}

/// Unpacks into `raw`, which grows only as far as the compressed bytes can possibly fill it.
///
/// # Errors
/// [`crate::ErrorKind::Value`] when the bytes are no such value, or not of the size that they state.
pub fn decompress<'a>(compressed: &Compressed<'_>, raw: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    let size = compressed.raw_size as usize;
    let ratio = match compressed.method {
        Method::Pglz => pglz::MAX_RATIO,
        Method::Lz4 => LZ4_MAX_RATIO,
    };
    let most = compressed.data.len().saturating_mul(ratio);
    if size > most {
        let found = format!("{} compressed ones", compressed.data.len());
        return Err(value_error("compressed value", format!("enough data for {size} bytes"), found));
    }
    if raw.len() < size {
        raw.resize(size, 0);
    }
    let target = raw.get_mut(..size).unwrap_or_default();
    match compressed.method {
        Method::Pglz => pglz::decompress(compressed.data, target)?,
        Method::Lz4 => match lz4_flex::block::decompress_into(compressed.data, target) {
            Ok(written) if written == size => {}
            Ok(written) => return Err(value_error("lz4 data", format!("{size} bytes of value"), written)),
            Err(error) => {
                return Err(value_error(
                    "lz4 data",
                    format!("{size} bytes of value"),
                    format!("damage: {error}"),
                ));
            }
        },
    }
    Ok(target)
}

/// Each byte of an LZ4 block stands for at most 255 bytes of its value.
const LZ4_MAX_RATIO: usize = 255;
