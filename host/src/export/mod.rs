//! A packed file as what a microcontroller's program is built with.
//!
//! | file | idea |
//! |---|---|
//! | `drawing_cost` | memory and multiplications of drawing an image |
//! | `facts` | what a file takes and draws, as lines and as constants |
//! | `source` | the file as C or Rust |
//! | `packed_size` | packed files as catalogues list them |
//! | `board` | the boards, their memories and their compilers' settings |
//! | `project` | a folder with everything, from the templates in `assets/firmware` |

pub(crate) mod board;
pub(crate) mod drawing_cost;
pub(crate) mod facts;
pub(crate) mod packed_size;
pub(crate) mod project;
pub(crate) mod source_code;
