//! The configuration as JSON: upstream writes -1 for what is not set.

use super::config::{Dims, Ignored};
use core::fmt::Display;
use core::marker::PhantomData;
use heapless::Vec;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// The `with` module of a field that is -1 where it is not set.
macro_rules! unset_is_minus_one {
    ($field:ident) => {
        pub(super) mod $field {
            use super::{Deserialize, Deserializer, Serialize, Serializer};

            #[expect(clippy::ref_option, reason = "serde gives a reference")]
            pub(in super::super) fn serialize<S: Serializer>(
                value: &Option<usize>,
                to: S,
            ) -> Result<S::Ok, S::Error> {
                match value {
                    Some(value) => value.serialize(to),
                    None => to.serialize_i64(-1),
                }
            }

            pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
                from: D,
            ) -> Result<Option<usize>, D::Error> {
                let field = stringify!($field);
                let value = i64::deserialize(from)?;
                match usize::try_from(value) {
                    Ok(set) if set > 0 => Ok(Some(set)),
                    _ if value == -1 => Ok(None),
                    _ => Err(super::wrong(field, value, "-1 (unset) or above 0")),
                }
            }
        }
    };
}

unset_is_minus_one!(num_head_channels);
unset_is_minus_one!(num_heads_upsample);
unset_is_minus_one!(image_size);

/// The module of a field that is a short list.
macro_rules! short_list {
    ($field:ident, $item:ty) => {
        pub(super) mod $field {
            pub(in super::super) fn deserialize<
                'de,
                D: super::Deserializer<'de>,
                const N: usize,
            >(
                from: D,
            ) -> Result<heapless::Vec<$item, N>, D::Error> {
                super::list(from, stringify!($field))
            }
        }
    };
}

short_list!(attention_resolutions, usize);
short_list!(channel_mult, f64);

/// A list of at most `N` items, whose name errors tell.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const N: usize>(
    from: D,
    name: &'static str,
) -> Result<Vec<T, N>, D::Error> {
    struct List<T, const N: usize>(&'static str, PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for List<T, N> {
        type Value = Vec<T, N>;

        fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            write!(f, "a list of at most {N} numbers for {}", self.0)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                list.push(item).map_err(|_| A::Error::invalid_length(N + 1, &self))?;
            }
            Ok(list)
        }
    }

    from.deserialize_seq(List(name, PhantomData))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
pub(super) const fn is_one(patch: &usize) -> bool {
    *patch == 1
}

impl Serialize for Dims {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(2)
    }
}

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match i64::deserialize(from)? {
            2 => Ok(Self),
            dims => Err(wrong("dims", dims, "2")),
        }
    }
}

fn wrong<E: Error>(field: &str, found: impl Display, right: &str) -> E {
    E::custom(format_args!("{field} = {found} must be {right}"))
}

impl Serialize for Ignored {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(from).map(|_| Self)
    }
}
