//! A packed file as what a microcontroller's program is built with, and any checkpoint as a folder for
//! model hubs.
//!
//! | file | idea |
//! |---|---|
//! | `drawing_cost` | memory and multiplications of drawing an image |
//! | `facts` | what a file takes and draws, as lines and as constants |
//! | `source` | the file as C or Rust |
//! | `board` | the boards, their memories and their compilers' settings |
//! | `project` | a folder with everything, from the templates in `assets/firmware` |
//! | `hub` | a folder as model hubs lay it out |
//! | `model_card` | its `README.md`, from facts to text |
//! | `training_run` | facts of a training run, from the files in its folder |
//! | `sweep_results` | distances that a sweep has measured |
//! | `net_difference` | whether a packed file is of the same net |
//! | `packed_size` | packed files as catalogues list them |

pub(crate) mod board;
pub(crate) mod drawing_cost;
pub(crate) mod facts;
pub(crate) mod hub;
mod model_card;
mod net_difference;
pub(crate) mod packed_size;
pub(crate) mod project;
pub(crate) mod source_code;
mod sweep_results;
mod training_run;
