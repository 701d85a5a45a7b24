//! Texts of flags that follow the rule of a key.

use crate::config::rule::Rule;

fn checked(rule: Rule, text: &str) -> Result<String, String> {
    rule.read(text).map(|_| text.to_owned())
}

pub(super) fn rpc_addr(text: &str) -> Result<String, String> {
    checked(Rule::RpcAddress, text)
}

pub(super) fn redis_url(text: &str) -> Result<String, String> {
    checked(Rule::RedisUrl, text)
}

pub(super) fn data_dir(text: &str) -> Result<String, String> {
    checked(Rule::Text, text)
}
