//! From a method and a path to the rpc that they name.

pub mod template;
pub mod trie;

#[cfg(test)]
mod tests;
