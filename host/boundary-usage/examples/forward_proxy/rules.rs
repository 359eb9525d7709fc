//! Allow rules in the syntax of the boundary: `method=GET,HEAD domain=api.example.com path=/v1/*`.
//!
//! Each key is optional and takes a list. A rule allows a request if all its keys match. A request without a matching
//! rule is denied.
//!
//! | pattern | matches |
//! | --- | --- |
//! | `domain=example.com` | exactly this name |
//! | `domain=*.example.com` | one or more labels before the name; a later `*` is one label, but never the last |
//! | `path=/v1/*` | one or more segments after the prefix; an earlier `*` is exactly one segment |
//! | `*` | everything |

use std::str::FromStr;

/// One rule. An empty list means that the key is absent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    methods: Vec<String>,
    domains: Vec<String>,
    paths: Vec<String>,
}

impl Rule {
    /// Returns whether the rule allows a plain request.
    pub(crate) fn allows(&self, method: &str, domain: &str, path: &str) -> bool {
        self.allows_method(method) && self.allows_domain(domain) && self.allows_path(path)
    }

    /// Returns whether the rule allows a tunnel. A rule with methods or paths allows no tunnel, because a tunnel hides
    /// them.
    pub(crate) fn allows_tunnel(&self, domain: &str) -> bool {
        let any_path = self.paths.is_empty() || self.paths.iter().any(|pattern| pattern == "*");
        any_path && self.allows_method("CONNECT") && self.allows_domain(domain)
    }

    fn allows_method(&self, method: &str) -> bool {
        any(&self.methods, |pattern| pattern == "*" || pattern.eq_ignore_ascii_case(method))
    }

    fn allows_domain(&self, domain: &str) -> bool {
        let domain = domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase();
        any(&self.domains, |pattern| pattern == "*" || matches_domain(pattern, &domain))
    }

    fn allows_path(&self, path: &str) -> bool {
        any(&self.paths, |pattern| pattern == "*" || (!has_dot_segment(path) && matches_path(pattern, path)))
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut rule = Self::default();
        for pair in text.split_whitespace() {
            let (key, values) = pair.split_once('=').ok_or_else(|| format!("`{pair}` is not `key=value`"))?;
            let values = values.split(',').map(str::to_owned);
            match key {
                "method" => rule.methods.extend(values),
                "domain" => rule.domains.extend(values.map(|domain| domain.to_ascii_lowercase())),
                "path" => rule.paths.extend(values),
                _ => return Err(format!("unknown key `{key}`, expected method, domain or path")),
            }
        }
        rule.check()?;
        Ok(rule)
    }
}

impl Rule {
    /// Returns an error for a pattern that cannot match.
    ///
    /// Such a pattern would silently deny requests.
    fn check(&self) -> Result<(), String> {
        let (methods, domains, paths) = (&self.methods, &self.domains, &self.paths);
        if methods.is_empty() && domains.is_empty() && paths.is_empty() {
            return Err("an empty rule would allow everything; use `domain=*` for that".into());
        }
        if [methods, domains, paths].into_iter().flatten().any(String::is_empty) {
            return Err("a value is empty".into());
        }
        let half = |part: &str| part.len() > 1 && part.contains('*');
        if let Some(domain) = domains.iter().find(|domain| domain.split('.').any(half)) {
            return Err(format!("in the domain `{domain}`, a `*` must be a complete label"));
        }
        if let Some(domain) = domains.iter().find(|domain| domain.len() > 1 && domain.ends_with('*')) {
            return Err(format!("the domain `{domain}` ends with `*` and would match foreign domains"));
        }
        if let Some(path) = paths.iter().find(|path| *path != "*" && !path.starts_with('/')) {
            return Err(format!("the path `{path}` does not begin with `/`"));
        }
        if let Some(path) = paths.iter().find(|path| path.split('/').any(half)) {
            return Err(format!("in the path `{path}`, a `*` must be a complete segment"));
        }
        Ok(())
    }
}

fn any(patterns: &[String], matches: impl Fn(&str) -> bool) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern))
}

fn matches_domain(pattern: &str, domain: &str) -> bool {
    // Labels are compared from the right, so a leading `*` comes last.
    matches_parts(pattern.rsplit('.'), domain.rsplit('.'))
}

fn matches_path(pattern: &str, path: &str) -> bool {
    matches_parts(pattern.split('/'), path.split('/'))
}

/// Returns whether the parts match. A `*` matches one part; a final `*` matches all remaining parts.
fn matches_parts<'a>(patterns: impl Iterator<Item = &'a str>, mut parts: impl Iterator<Item = &'a str>) -> bool {
    let mut patterns = patterns.peekable();
    while let Some(pattern) = patterns.next() {
        let Some(part) = parts.next() else { return false };
        match pattern {
            "*" if patterns.peek().is_none() => return true,
            _ if pattern == "*" || pattern == part => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

/// Returns whether a path contains `..`. No pattern matches such a path, because only the upstream can resolve it.
fn has_dot_segment(path: &str) -> bool {
    let path = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    path.split(['/', '\\']).any(|segment| segment == "." || segment == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap()
    }

    #[test]
    fn domains_match_like_in_the_boundary() {
        for (pattern, matching, others) in [
            ("*", &["example.com", "localhost"][..], &[][..]),
            ("github.com", &["github.com", "GitHub.com", "github.com."], &["api.github.com", "github.io", "com"]),
            ("*.github.com", &["api.github.com", "v1.api.github.com"], &["github.com", "github.com.evil.org"]),
            ("api.*.com", &["api.github.com", "api.google.com"], &["api.v1.github.com", "v1.api.github.com"]),
            ("*.*.com", &["api.example.com", "api.v1.github.com"], &["github.com"]),
        ] {
            let rule = rule(&format!("domain={pattern}"));
            assert!(matching.iter().all(|domain| rule.allows("GET", domain, "/")), "{pattern}: {matching:?}");
            assert!(others.iter().all(|domain| !rule.allows("GET", domain, "/")), "{pattern}: {others:?}");
        }
    }

    #[test]
    fn paths_match_like_in_the_boundary() {
        for (pattern, matching, others) in [
            ("*", &["/", "/a/../b"][..], &[][..]),
            ("/v1/users", &["/v1/users"], &["/v1/users/123", "/v1", "/v1/users/"]),
            ("/v1/*", &["/v1/users", "/v1/users/123/details"], &["/v1", "/v1s/users"]),
            ("/v1/*/users", &["/v1/a/users"], &["/v1/users", "/v1/a/v2/users"]),
            ("/*/users", &["/v1/users"], &["/v1/a/users"]),
            ("/a,/b/*", &["/a", "/b/c"], &["/b", "/a/c"]),
            ("/v1/*", &["/v1/..a"], &["/v1/../secret", "/v1/%2E%2e/secret", "/v1/..%2fsecret", "/v1/..\\secret"]),
        ] {
            let rule = rule(&format!("path={pattern}"));
            assert!(matching.iter().all(|path| rule.allows("GET", "a", path)), "{pattern}: {matching:?}");
            assert!(others.iter().all(|path| !rule.allows("GET", "a", path)), "{pattern}: {others:?}");
        }
    }

    #[test]
    fn every_key_of_a_rule_must_match() {
        let rule = rule("method=GET,head domain=a.com path=/x");
        assert!(rule.allows("GET", "a.com", "/x") && rule.allows("HEAD", "a.com", "/x"));
        for (method, domain, path) in [("POST", "a.com", "/x"), ("GET", "b.com", "/x"), ("GET", "a.com", "/y")] {
            assert!(!rule.allows(method, domain, path), "{method} {domain} {path}");
        }
    }

    #[test]
    fn tunnels_need_a_rule_without_methods_and_paths() {
        for allowing in ["domain=a.com", "domain=a.com path=*", "method=CONNECT domain=a.com", "method=* domain=a.com"]
        {
            assert!(rule(allowing).allows_tunnel("a.com") && !rule(allowing).allows_tunnel("b.com"), "{allowing}");
        }
        for denying in ["method=GET domain=a.com", "domain=a.com path=/x"] {
            assert!(!rule(denying).allows_tunnel("a.com"), "{denying}");
        }
    }

    #[test]
    fn rules_that_are_probably_mistakes_are_refused() {
        for refused in ["", "domain", "host=a", "domain=api.*", "domain=", "path=x", "path=/v1/user*", "domain=a*.com"]
        {
            assert!(refused.parse::<Rule>().is_err(), "{refused}");
        }
    }
}
