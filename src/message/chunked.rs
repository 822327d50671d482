//! The chunked transfer coding (RFC 9112 §7.1), read strictly and written afresh: what a sender wrote around its chunks
//! never reaches the other side.

use super::head::Fields;
use super::line::{Fault, Limits, Line, Progress};

/// The most bytes of a chunk's first line: a size and extensions, which are read over.
const LONGEST_SIZE_LINE: usize = 256;
/// How many bytes of extensions a body may have in all, beside as much as it has data.
const MOST_EXTENSIONS: u64 = 16 * 1024;

/// Where a decoder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// In the digits of a size; how many there were.
    Size(u8),
    /// In the extensions behind it; how many bytes.
    Extension(u16),
    /// Before the LF of that line.
    SizeEnd,
    Data,
    /// Behind the data.
    DataCr,
    DataLf,
    Trailers,
    End,
}

/// Takes chunks apart.
#[derive(Debug)]
pub struct Decoder {
    stage: Stage,
    /// The size so far, then how much of the chunk is left.
    left: u64,
    /// Bytes of data, and of extensions.
    data: u64,
    extensions: u64,
    trailers: Option<Box<Trailers>>,
}

/// The trailer section, while it is read and afterwards.
#[derive(Debug)]
struct Trailers {
    fields: Fields,
    progress: Progress,
}

/// What a step of decoding came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// How many bytes of data stand at the front of the buffer now.
    pub data: usize,
    /// How many of the bytes that were given were used. Less than all only at the end.
    pub used: usize,
    /// Whether the body is over.
    pub end: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { stage: Stage::Size(0), left: 0, data: 0, extensions: 0, trailers: None }
    }
}

impl Decoder {
    /// Takes what has arrived apart, in place: the data moves to the front of `bytes`.
    ///
    /// # Errors
    /// When it is not the coding, or its trailer section is not within `limits`.
    pub fn decode(&mut self, bytes: &mut [u8], limits: &Limits) -> Result<Decoded, Fault> {
        let (mut used, mut data) = (0, 0);
        while let Some(byte) = bytes.get(used).copied() {
            match self.stage {
                Stage::Data => {
                    let run = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - used);
                    bytes.copy_within(used..used + run, data);
                    (used, data) = (used + run, data + run);
                    self.left -= run as u64;
                    self.data += run as u64;
                    if self.left == 0 {
                        self.stage = Stage::DataCr;
                    }
                    continue;
                }
                Stage::Trailers => {
                    let trailers = self.trailers.get_or_insert_with(Trailers::begin);
                    let before = trailers.fields.bytes.len();
                    trailers.fields.bytes.extend_from_slice(bytes.get(used..).unwrap_or_default());
                    if let Some(end) = trailers.read(limits)? {
                        trailers.fields.bytes.truncate(end);
                        self.stage = Stage::End;
                        return Ok(Decoded { data, used: used + (end - before), end: true });
                    }
                    used = bytes.len();
                    continue;
                }
                Stage::End => break,
                Stage::Size(digits) => self.stage = self.size(byte, digits)?,
                Stage::Extension(length) => self.stage = self.extension(byte, length)?,
                Stage::SizeEnd if byte != b'\n' => return Err(Fault::Malformed("the line of a chunk ends without LF")),
                Stage::SizeEnd if self.left == 0 => self.stage = Stage::Trailers,
                Stage::SizeEnd => self.stage = Stage::Data,
                Stage::DataCr if byte == b'\r' => self.stage = Stage::DataLf,
                Stage::DataLf if byte == b'\n' => self.stage = Stage::Size(0),
                Stage::DataCr | Stage::DataLf => {
                    return Err(Fault::Malformed("a chunk is longer than it says"));
                }
            }
            used += 1;
        }
        Ok(Decoded { data, used, end: self.stage == Stage::End })
    }

    fn size(&mut self, byte: u8, digits: u8) -> Result<Stage, Fault> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            // Fifteen digits are more than anybody sends, and are no overflow.
            if digits >= 15 {
                return Err(Fault::Malformed("the size of a chunk has too many digits"));
            }
            self.left = if digits == 0 { 0 } else { self.left * 16 } + u64::from(digit);
            return Ok(Stage::Size(digits + 1));
        }
        match byte {
            _ if digits == 0 => Err(Fault::Malformed("a chunk has no size")),
            b'\r' => Ok(Stage::SizeEnd),
            b';' => Ok(Stage::Extension(0)),
            _ => Err(Fault::Malformed("the size of a chunk is no number")),
        }
    }

    fn extension(&mut self, byte: u8, length: u16) -> Result<Stage, Fault> {
        self.extensions += 1;
        if usize::from(length) >= LONGEST_SIZE_LINE || self.extensions > self.data + MOST_EXTENSIONS {
            return Err(Fault::Malformed("the extensions of chunks are too long"));
        }
        match byte {
            b'\r' => Ok(Stage::SizeEnd),
            b'\t' | b' '..=b'~' | 0x80..=0xff => Ok(Stage::Extension(length + 1)),
            _ => Err(Fault::Malformed("an extension of a chunk has a character that it cannot have")),
        }
    }

    /// The trailer section, once the body is over and if it had one.
    #[must_use]
    pub fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref().map(|trailers| &trailers.fields).filter(|fields| !fields.is_empty())
    }
}

impl Trailers {
    fn begin() -> Box<Self> {
        Box::new(Self { fields: Fields::default(), progress: Progress::without_first_line() })
    }

    /// Reads on, and says where the section ends once it is whole.
    fn read(&mut self, limits: &Limits) -> Result<Option<usize>, Fault> {
        loop {
            match self.progress.advance(&mut self.fields, limits)? {
                Line::Partial => return Ok(None),
                Line::First(_) => {}
                Line::End(end) => return Ok(Some(end)),
            }
        }
    }
}

/// Room that is left before data for the line that a chunk begins with, and behind it for what ends a chunk and a body.
pub const HEADROOM: usize = 18;
/// See [`HEADROOM`].
pub const TAILROOM: usize = 7;

/// Makes a chunk of the data at `start..end`, and the last one with `last`: writes what goes around it into the room that
/// is left there. Returns where what is to be sent begins and ends.
pub fn encode(buffer: &mut [u8], start: usize, end: usize, last: bool) -> (usize, usize) {
    let mut begin = start;
    let mut put_before = |byte: u8| {
        begin -= 1;
        if let Some(place) = buffer.get_mut(begin) {
            *place = byte;
        }
    };
    let size = end - start;
    if size > 0 {
        put_before(b'\n');
        put_before(b'\r');
        let mut left = size;
        while left > 0 {
            put_before(char::from_digit((left % 16) as u32, 16).map_or(b'0', |digit| digit as u8));
            left /= 16;
        }
    }
    let tail: &[u8] = match (size > 0, last) {
        (true, true) => b"\r\n0\r\n\r\n",
        (true, false) => b"\r\n",
        (false, true) => b"0\r\n\r\n",
        (false, false) => b"",
    };
    if let Some(room) = buffer.get_mut(end..end + tail.len()) {
        room.copy_from_slice(tail);
    }
    (begin, end + tail.len())
}
