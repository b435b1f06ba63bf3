//! Zip archives as `torch.save` writes them: stored entries only, payloads aligned, sizes behind the data.
//!
//! Reading goes in steps, each on bytes the caller fetched: [`find_directory`] on the end of the file, [`parse_directory`] on the
//! directory, [`data_start`] on an entry's local header; [`torch_start`] says where torch puts the data without looking. Writing is [`Layout`]: the same bytes as torch's, without the payloads.
//!
//! Not here: what the entries mean (`torch`), general zip files (compressed, encrypted or split ones are refused).

mod directory;
mod entry;
mod error;
mod fields;
mod layout;
mod place;
#[cfg(test)]
mod tests;

pub use directory::{Directory, Located, TAIL, find_directory};
pub use entry::{Entry, LOCAL_HEADER, data_start, parse_directory};
pub use error::{ZipError, explain};
pub use layout::{ALIGNMENT, Layout, Piece, RecordSpec};
pub use place::torch_start;
