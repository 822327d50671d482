//! The encoders: bytes are pushed in, and what has become of them is added to a buffer.

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct};
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::stream::raw::{CParameter, InBuffer, Operation as _, OutBuffer};

use super::Coding;

/// The room that a step has at least in the buffer.
const ROOM: usize = 4096;

/// The level of gzip, of nine.
const GZIP_LEVEL: u32 = 5;
/// The window of gzip, as the power of two of its bytes: the greatest there is.
const GZIP_WINDOW: u8 = 15;
/// The quality of Brotli, of eleven. Those above cost several times the time.
const BROTLI_QUALITY: u32 = 4;
/// The window of Brotli, as gzip's. With 18 it would hold half as much again, for 3 % in size.
const BROTLI_WINDOW: u32 = 17;
/// For how many bytes Brotli makes its tables. It would go by the first push otherwise, and take 4 MiB if that is a large one.
const BROTLI_SIZE_HINT: u32 = 1 << 16;
/// The level of Zstandard, of 22.
const ZSTD_LEVEL: i32 = 3;
/// The window and the tables of Zstandard: an eighth and the half of what the level has by itself.
const ZSTD_SIZES: [CParameter; 3] = [CParameter::WindowLog(18), CParameter::HashLog(16), CParameter::ChainLog(15)];

/// The encoder failed, which is its own fault or due to a lack of memory. What it has given so far cannot be brought to
/// an end, so the response has to be aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("compression failed")]
pub struct Failed;

/// Encodes one response. As measured with text, noise and what makes the most of each table, an encoder holds 0.4 MiB for
/// gzip, 1.4 MiB for Zstandard, and for Brotli 0.8 MiB at first, 2.4 MiB later and 3 MiB for moments within a call; the
/// length of the response does not matter. What it adds to the buffer comes on top.
pub struct Encoder {
    codec: Codec,
    /// Whether something was pushed that a flush would bring out.
    is_behind: bool,
}

enum Codec {
    Gzip(Compress),
    Brotli(Box<BrotliEncoderStateStruct<StandardAlloc>>),
    Zstd(zstd::stream::raw::Encoder<'static>),
}

/// What is asked of a codec.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// To take bytes in.
    Push,
    /// To give out everything that came in.
    Flush,
    /// To give out everything, and the end.
    Finish,
}

impl Encoder {
    /// An encoder for one response.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(coding: Coding) -> Result<Self, Failed> {
        let codec = match coding {
            Coding::Gzip => Codec::Gzip(Compress::new_gzip(Compression::new(GZIP_LEVEL), GZIP_WINDOW)),
            Coding::Brotli => {
                let mut state = Box::new(BrotliEncoderStateStruct::new(StandardAlloc::default()));
                state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_QUALITY, BROTLI_QUALITY);
                state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_LGWIN, BROTLI_WINDOW);
                state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_SIZE_HINT, BROTLI_SIZE_HINT);
                Codec::Brotli(state)
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::raw::Encoder::new(ZSTD_LEVEL).map_err(|_| Failed)?;
                for size in ZSTD_SIZES {
                    encoder.set_parameter(size).map_err(|_| Failed)?;
                }
                Codec::Zstd(encoder)
            }
        };
        Ok(Self { codec, is_behind: false })
    }

    /// Takes bytes in. Of what becomes of them, some is added to the buffer now, and the rest later.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), Failed> {
        if input.is_empty() {
            return Ok(());
        }
        self.is_behind = true;
        self.codec.run(Step::Push, input, out)
    }

    /// Adds whatever is still to come of what was pushed, so that the other side can decode all of that now. It costs some
    /// bytes each time, and none when nothing was pushed since the last time.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Failed> {
        if !std::mem::take(&mut self.is_behind) {
            return Ok(());
        }
        self.codec.run(Step::Flush, &[], out)
    }

    /// Adds whatever is still to come, and the end.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), Failed> {
        self.codec.run(Step::Finish, &[], out)
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let coding = match self.codec {
            Codec::Gzip(_) => Coding::Gzip,
            Codec::Brotli(_) => Coding::Brotli,
            Codec::Zstd(_) => Coding::Zstd,
        };
        f.debug_struct("Encoder").field("coding", &coding).field("is_behind", &self.is_behind).finish()
    }
}

impl Codec {
    fn run(&mut self, step: Step, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), Failed> {
        loop {
            out.reserve(ROOM);
            let (used, done) = match self {
                Self::Gzip(codec) => gzip(codec, step, input, out)?,
                Self::Brotli(codec) => brotli(codec, step, input, out)?,
                Self::Zstd(codec) => zstd(codec, step, input, out)?,
            };
            input = input.get(used..).unwrap_or_default();
            if done && input.is_empty() {
                return Ok(());
            }
        }
    }
}

// One step of each: how much of the input was used, and whether nothing more is to come of it. All fill the room that the
// buffer has.

fn gzip(codec: &mut Compress, step: Step, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), Failed> {
    let before = codec.total_in();
    let flush = match step {
        Step::Push => FlushCompress::None,
        Step::Flush => FlushCompress::Sync,
        Step::Finish => FlushCompress::Finish,
    };
    let status = codec.compress_vec(input, out, flush).map_err(|_| Failed)?;
    let done = match step {
        Step::Push => true,
        // There may be more to come unless there is room left (zlib.h, deflate).
        Step::Flush => out.len() < out.capacity(),
        Step::Finish => status == Status::StreamEnd,
    };
    Ok((usize::try_from(codec.total_in() - before).unwrap_or(usize::MAX), done))
}

fn brotli(
    codec: &mut BrotliEncoderStateStruct<StandardAlloc>,
    step: Step,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(usize, bool), Failed> {
    let operation = match step {
        Step::Push => BrotliEncoderOperation::BROTLI_OPERATION_PROCESS,
        Step::Flush => BrotliEncoderOperation::BROTLI_OPERATION_FLUSH,
        Step::Finish => BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
    };
    // Given no room, it keeps its output to be taken.
    let (mut left, mut used) = (input.len(), 0);
    let went_well = codec.compress_stream(
        operation,
        &mut left,
        input,
        &mut used,
        &mut 0,
        &mut [],
        &mut 0,
        &mut None,
        &mut |_, _, _, _| (),
    );
    if !went_well {
        return Err(Failed);
    }
    let mut size = 0;
    let output = codec.take_output(&mut size);
    out.extend_from_slice(output.get(..size).ok_or(Failed)?);
    let done = match step {
        Step::Push | Step::Flush => !codec.has_more_output(),
        Step::Finish => codec.is_finished(),
    };
    Ok((used, done))
}

fn zstd(
    codec: &mut zstd::stream::raw::Encoder<'static>,
    step: Step,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(usize, bool), Failed> {
    let (mut input, end) = (InBuffer::around(input), out.len());
    let mut output = OutBuffer::around_pos(out, end);
    let left = match step {
        // What is returned is only a hint here.
        Step::Push => codec.run(&mut input, &mut output).map(|_| 0),
        Step::Flush => codec.flush(&mut output),
        Step::Finish => codec.finish(&mut output, true),
    };
    Ok((input.pos(), left.map_err(|_| Failed)? == 0))
}
