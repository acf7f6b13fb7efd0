//! Decoders behind one `Read`.
//!
//! Output is not limited here: a layer may be as large as the disk. Memory is: zstd windows and xz
//! dictionaries of more than 128 MiB are refused, gzip and bzip2 need less than 4 MiB ever.

use std::io::{self, BufReader, Read};

use super::Compression;
use crate::error::ImageError;
use crate::limits;

/// Compressed bytes read at once.
const BUFFER: usize = 128 << 10;
/// Memory for one xz stream; `xz -9` needs half of it.
const XZ_MEMORY: u64 = 1 << limits::ZSTD_WINDOW_LOG;

/// Reads what `source` holds compressed. `subject` names it in errors.
///
/// Concatenated members, frames and streams are read as one, as every tool does.
pub fn reader<'a>(
    compression: Compression,
    source: impl Read + 'a,
    subject: &str,
) -> Result<Box<dyn Read + 'a>, ImageError> {
    let source = BufReader::with_capacity(BUFFER, source);
    let decoder: Box<dyn Read + 'a> = match compression {
        Compression::None => return Ok(Box::new(source)),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source)
                .map_err(ImageError::read(subject))?;
            decoder.window_log_max(limits::ZSTD_WINDOW_LOG).map_err(ImageError::read(subject))?;
            Box::new(decoder)
        }
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY,
                liblzma::stream::CONCATENATED,
            )
            .map_err(|error| ImageError::read(subject)(error.into()))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(source, stream))
        }
    };
    Ok(Box::new(Named { decoder, compression, subject: subject.to_owned() }))
}

/// Says which stream a decoder's error is about.
struct Named<'a> {
    decoder: Box<dyn Read + 'a>,
    compression: Compression,
    subject: String,
}

impl Read for Named<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buffer).map_err(|source| {
            if source.kind() == io::ErrorKind::Interrupted {
                return source;
            }
            let format = match self.compression {
                Compression::None => "plain",
                Compression::Gzip => "gzip",
                Compression::Zstd => "zstd",
                Compression::Bzip2 => "bzip2",
                Compression::Xz => "xz",
            };
            match source.downcast::<ImageError>() {
                Ok(error) => error.into(),
                Err(source) => {
                    let subject = self.subject.clone();
                    ImageError::Compression { subject, format, source }.into()
                }
            }
        })
    }
}
