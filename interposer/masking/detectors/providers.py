"""Keys and tokens that say themselves whose they are: the documented prefixes and shapes of common services."""

from __future__ import annotations

import re

from .detector import SECRETS, Detector, Finding, Inspect, entropy

_W = "[A-Za-z0-9_-]"
_A = "[A-Za-z0-9]"
_H = "[0-9a-fA-F]"
_DRAWING = re.compile(r"(?i)xxxxx|\.\.\.\.\.|\*\*\*\*\*|00000000")
_DIGIT = re.compile(r"[0-9]", re.ASCII)
_UUID = rf"{_H}{{8}}-{_H}{{4}}-{_H}{{4}}-{_H}{{4}}-{_H}{{12}}"
_LEAST_ENTROPY = 2.2
"""Bits per character below which a token is a drawing of itself (`xxxx-xxxx`)."""
_MANY = 10
"""Different characters that make counting bits unnecessary."""

# One line per service: the name that is shown, the characters that a token can begin with, its shape.
_SHAPES: tuple[tuple[str, str, str], ...] = (
    ("aws_access_key", "A", r"(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA|AGPA|ANPA|ANVA|APKA)[A-Z0-9]{16}"),
    ("aws_bedrock_key", "A", r"ABSK[A-Za-z0-9+/]{40,}={0,2}"),
    ("aws_bedrock_key", "b", r"bedrock-api-key-[A-Za-z0-9+/=_.-]{20,}"),
    ("google_api_key", "A", rf"AIza{_W}{{35}}"),
    ("google_oauth_secret", "G", rf"GOCSPX-{_W}{{20,}}"),
    ("google_oauth_token", "y", rf"ya29\.{_W}{{20,}}"),
    ("google_refresh_token", "1", rf"1//0{_W}{{20,}}"),
    ("azure_client_secret", "0123456789", r"[0-9]Q~[A-Za-z0-9_~.-]{31,34}"),
    ("azure_storage_key", "AS", r"(?:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{40,}={0,2}"),
    ("azure_signature", "sS", r"(?i:sig)=[A-Za-z0-9%+/]{40,}(?:%3[dD]|=)"),
    ("azure_devops_token", "J", r"JQQJ99[A-Za-z0-9]{22,26}"),
    ("github_token", "g", rf"gh[pousr]_{_A}{{30,255}}|github_pat_[A-Za-z0-9_]{{30,255}}"),
    (
        "gitlab_token",
        "gGA_",
        rf"gl(?:pat|dt|ft|rt|rtr|cbt|ptt|oas|soat|imt|agent|ffct|wt)-{_W}{{16,}}(?:\.{_W}{{7,}}){{0,2}}"
        rf"|GR1348941{_W}{{20}}|_gitlab_session=[0-9a-z]{{32}}",
    ),
    ("slack_token", "x", r"xox[abceoprs](?:\.xox[bp])?-[A-Za-z0-9-]{20,}|xapp-[0-9]-[A-Za-z0-9-]{20,}"),
    ("slack_webhook", "h", r"hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/_-]{20,}"),
    ("teams_webhook", "w", r"webhook\.office\.com/webhookb2/[A-Za-z0-9@/_-]{40,}"),
    ("discord_webhook", "d", rf"discord(?:app)?\.com/api/webhooks/[0-9]{{17,20}}/{_W}{{40,}}"),
    ("discord_token", "MNO", rf"[MNO][A-Za-z0-9_-]{{23,27}}\.{_W}{{6}}\.{_W}{{27,40}}"),
    ("stripe_key", "srpw", rf"(?:sk|rk|pk)_(?:live|test|prod)_{_A}{{10,}}|whsec_[A-Za-z0-9+/=]{{24,}}"),
    (
        "openai_key",
        "s",
        rf"sk-(?:proj-|svcacct-|admin-|None-)?{_W}{{16,}}T3BlbkFJ{_W}{{16,}}|sk-(?:proj|svcacct|admin)-{_W}{{32,}}",
    ),
    ("anthropic_key", "s", rf"sk-ant-[a-z]{{2,8}}[0-9]{{2}}-{_W}{{40,}}"),
    ("openrouter_key", "s", rf"sk-or-(?:v[0-9]-)?{_H}{{32,}}"),
    ("llm_key", "s", rf"sk-{_A}{{32,}}|sk-lf-{_UUID}"),
    ("huggingface_token", "ha", rf"hf_{_A}{{30,40}}|api_org_{_A}{{30,40}}"),
    ("groq_key", "g", rf"gsk_{_A}{{40,}}"),
    ("xai_key", "x", rf"xai-{_A}{{40,}}"),
    ("perplexity_key", "p", rf"pplx-{_A}{{32,}}"),
    ("replicate_token", "r", rf"r8_{_A}{{30,}}"),
    ("langsmith_key", "l", rf"lsv2_(?:pt|sk)_{_H}{{32}}_{_H}{{10}}"),
    ("sendgrid_key", "S", r"SG\.[A-Za-z0-9=_.-]{40,}"),
    ("sendinblue_key", "x", rf"xkeysib-{_H}{{64}}-{_A}{{16}}"),
    ("mailgun_key", "kp", rf"(?:pub)?key-{_H}{{32}}"),
    ("mailchimp_key", "-", r"-us[0-9]{1,2}"),
    ("twilio_key", "SA", rf"(?:SK|AC){_H}{{32}}"),
    ("npm_token", "n", rf"npm_{_A}{{30,}}"),
    ("pypi_token", "p", rf"pypi-Ag{_W}{{40,}}"),
    ("rubygems_key", "r", rf"rubygems_{_H}{{48}}"),
    ("clojars_token", "cC", r"(?i:CLOJARS_)[A-Za-z0-9]{60}"),
    ("nuget_key", "o", r"oy2[a-z0-9]{43}"),
    ("cargo_token", "c", rf"cio{_A}{{32}}"),
    ("docker_token", "d", rf"dckr_(?:pat|oat)_{_W}{{24,}}"),
    ("digitalocean_token", "d", rf"do[opr]_v1_{_H}{{64}}"),
    ("doppler_token", "d", r"dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9._-]{30,}"),
    ("duffel_token", "d", r"duffel_(?:test|live)_[A-Za-z0-9_=-]{30,}"),
    ("dynatrace_token", "d", rf"dt0[a-z][0-9]{{2}}\.{_A}{{24}}\.{_A}{{60,}}"),
    ("databricks_token", "d", rf"dapi{_H}{{32}}(?:-[0-9])?|dapi[a-z0-9]{{32}}"),
    ("defined_networking_token", "d", r"dnkey-[A-Za-z0-9=_-]{26}-[A-Za-z0-9=_-]{50,}"),
    ("shopify_token", "s", rf"shp(?:at|ca|pa|ss)_{_H}{{32}}"),
    ("square_token", "sE", rf"sq0(?:atp|csp|idp)-{_W}{{22,}}|EAAA{_W}{{20,}}"),
    ("paypal_token", "a", rf"access_token\$(?:production|sandbox)\$[a-z0-9]{{16}}\${_H}{{32}}"),
    ("plaid_token", "a", rf"access-(?:sandbox|development|production)-{_UUID}"),
    ("facebook_token", "E0123456789", rf"EAA[MC][A-Za-z0-9]{{60,}}|[0-9]\|{_W}{{27,40}}"),
    ("telegram_token", "0123456789", rf"[0-9]:A{_W}{{34}}"),
    ("linkedin_token", "W", r"WPL_AP[01]\.[A-Za-z0-9]{16}\.[A-Za-z0-9+/=]{8,}"),
    ("grafana_token", "ge", r"gl(?:c|sa)_[A-Za-z0-9+/_=-]{32,}|eyJrIjoi[A-Za-z0-9+/=]{40,}"),
    ("sentry_token", "s", rf"sntrys_[A-Za-z0-9+/=_-]{{40,}}|sntryu_{_H}{{60,}}"),
    ("vault_token", "hs", rf"hv[sbr]\.{_W}{{24,}}|s\.{_A}{{24}}"),
    ("terraform_token", ".", r"\.atlasv1\.[A-Za-z0-9_=-]{60,}"),
    ("pulumi_token", "p", rf"pul-{_H}{{40}}"),
    ("linear_key", "l", rf"lin_(?:api|oauth)_{_A}{{32,}}"),
    ("notion_token", "ns", rf"ntn_{_A}{{40,}}|secret_{_A}{{43}}"),
    ("postman_key", "P", rf"PMAK-{_H}{{24}}-{_H}{{34}}|PMAT-{_A}{{26}}"),
    ("figma_token", "f", rf"fig[durt]_{_W}{{36,}}"),
    ("airtable_token", "p", rf"pat{_A}{{14}}\.{_H}{{64}}"),
    ("atlassian_token", "A", r"AT(?:AT|CT|BB)[A-Za-z0-9][A-Za-z0-9_=-]{24,}"),
    ("artifactory_token", "Ac", rf"AKCp{_A}{{60,}}|cmVmd{_A}{{59}}"),
    ("newrelic_key", "N", r"NR(?:AK|II|RA|BR|JS|SP)-[A-Za-z0-9_-]{19,}"),
    ("planetscale_token", "p", r"pscale_(?:tkn|oauth|pw)_[A-Za-z0-9=._-]{30,}"),
    ("prefect_key", "p", rf"pnu_{_A}{{36}}"),
    ("readme_key", "r", r"rdme_[a-z0-9]{70}"),
    ("supabase_key", "s", rf"sbp_{_H}{{40}}|sb_secret_{_W}{{20,}}"),
    ("scalingo_token", "t", rf"tk-us-{_W}{{40,}}"),
    ("shippo_token", "s", rf"shippo_(?:live|test)_{_H}{{40}}"),
    ("settlemint_token", "s", rf"sm_(?:aat|pat|sat)_{_A}{{16}}"),
    ("sourcegraph_token", "s", rf"sgp_{_H}{{16}}_{_H}{{40}}|sgp_local_{_H}{{40}}|sgp_{_H}{{40}}|slk_{_H}{{64}}"),
    ("typeform_token", "t", r"tfp_[A-Za-z0-9_.=-]{50,}"),
    ("easypost_key", "E", rf"EZ[AT]K{_A}{{54}}"),
    ("flutterwave_key", "F", r"FLW(?:PUBK|SECK)_?(?:TEST|LIVE)?-[A-Za-z0-9]{12,}(?:-X)?"),
    ("flyio_token", "f", r"fo1_[A-Za-z0-9_-]{43}|fm[12][ar]?_[A-Za-z0-9+/]{60,}={0,3}"),
    ("frameio_token", "f", r"fio-u-[A-Za-z0-9_=-]{60,}"),
    ("gocardless_token", "l", r"live_[A-Za-z0-9_=-]{40}"),
    ("harness_key", "ps", rf"[ps]at\.{_W}{{22}}\.{_A}{{24,}}\.{_A}{{20}}"),
    ("heroku_key", "H", rf"HRKU-{_W}{{30,}}"),
    ("infracost_key", "i", rf"ico-{_A}{{32}}"),
    ("intra42_secret", "s", rf"s-s4t2(?:ud|af)-{_H}{{64}}"),
    ("mapbox_token", "ps", rf"(?:pk|sk|tk)\.{_A}{{50,}}\.{_W}{{20,}}"),
    ("maxmind_key", "_", r"_mmk"),
    ("octopus_key", "A", r"API-[A-Z0-9]{25,27}"),
    (
        "onepassword_key",
        "Ao",
        r"A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}|ops_eyJ[A-Za-z0-9+/=]{100,}",
    ),
    ("openshift_token", "s", rf"sha256~{_W}{{43}}"),
    ("cloudflare_key", "v", rf"v1\.0-{_H}{{24}}-{_H}{{100,}}"),
    ("alibaba_key", "L", rf"LTAI{_A}{{12,26}}"),
    ("tencent_key", "A", rf"AKID{_A}{{32}}"),
    ("yandex_key", "AYt", rf"AQVN{_W}{{35,}}|YC{_W}{{38}}|t1\.[A-Z0-9a-z_-]{{5,}}=*\.[A-Za-z0-9_-]{{80,}}"),
    ("adobe_secret", "p", rf"p8e-{_A}{{32}}"),
    ("age_key", "A", r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
    (
        "authress_key",
        "se",
        rf"(?:sc|ext|scauth|authress)_{_A}{{5,30}}\.{_A}{{4,6}}\.acc[_-]{_A}{{10,32}}\.[A-Za-z0-9+/_=-]{{30,120}}",
    ),
    ("clickhouse_secret", "4", rf"4b1d{_A}{{38}}"),
    ("tailscale_key", "t", rf"tskey-[a-z]+-{_A}{{8,}}-{_A}{{16,}}"),
    ("netlify_token", "n", rf"nfp_{_A}{{36}}"),
    ("vercel_token", "v", rf"vc[pkira]_{_A}{{24,}}"),
    ("rollbar_contentful_token", "C", rf"CFPAT-{_W}{{43}}"),
    ("hubspot_token", "p", rf"pat-(?:na|eu)[0-9]-{_UUID}"),
    ("amazon_mws_token", "a", rf"amzn\.mws\.{_UUID}"),
    ("amazon_oauth_secret", "a", rf"amzn1\.oa2-cs\.v1\.{_H}{{40,}}"),
    ("lob_key", "tl", rf"(?:live|test)_pub_{_H}{{31}}|(?:live|test)_{_H}{{35}}"),
)


# What stands before the part that the search looks for: a pattern that could begin anywhere would slow down everything.
_LEADS = {
    "azure_client_secret": re.compile(r"[A-Za-z0-9_~.]{3}$", re.ASCII),
    "azure_devops_token": re.compile(r"[A-Za-z0-9]{52}$", re.ASCII),
    "mailchimp_key": re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{32}$", re.ASCII),
    "facebook_token": re.compile(r"(?<![0-9])[0-9]{14,15}$", re.ASCII),
    "telegram_token": re.compile(r"(?<![0-9])[0-9]{7,9}$", re.ASCII),
    "terraform_token": re.compile(r"[A-Za-z0-9]{14}$", re.ASCII),
    "maxmind_key": re.compile(r"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}$", re.ASCII),
}


def _inspector(name: str) -> Inspect:
    lead = _LEADS.get(name)

    def inspect(text: str, start: int, end: int, context: str) -> list[Finding]:
        if lead is not None and not text.startswith("EAA", start):
            before = lead.search(text, max(0, start - 64), start)
            if before is None:
                return []
            start = before.start()
        if start > 0 and (text[start - 1].isalnum() or text[start - 1] == "_"):
            return []
        if end < len(text) and text[end].isalnum():
            return []
        token = text[start:end]
        tail = token[6:] if len(token) > 20 else token
        if (len(set(tail)) < _MANY and entropy(tail) < _LEAST_ENTROPY) or not _drawn_at_random(tail):
            return []
        return [(start, end, name)]

    return inspect


def _drawn_at_random(tail: str) -> bool:
    """Not one word or one letter repeated: a token that is long enough holds a digit, or both cases."""
    if _DRAWING.search(tail):
        return False
    return _DIGIT.search(tail) is not None or (tail.lower() != tail and tail.upper() != tail) or entropy(tail) > 2.4


_COUNT = re.compile(r"\{([0-9]+)(?:,[0-9]*)?\}|[*+?]")
_FEW = 8


def _beginning(shape: str, *, edge: bool) -> str:
    """The part of a shape that is searched for: each alternative up to its first long repeat, and a bit of that."""
    found = dict.fromkeys(_shortened(alternative) for alternative in _alternatives(shape))
    return (r"\b" if edge else "") + "(?:" + "|".join(found) + ")"


def _alternatives(shape: str) -> list[str]:
    """A pattern, cut at the bars that are in no group."""
    parts = [""]
    for atom in _atoms(shape):
        if atom == "|":
            parts.append("")
        else:
            parts[-1] += atom
    return parts


def _shortened(pattern: str) -> str:
    kept = ""
    for atom in _atoms(pattern):
        counts = [int(count) for count in re.findall(r"\{([0-9]+)", atom)]
        if max(counts, default=0) > _FEW + 1:
            count = None if atom.startswith("(") else re.search(r"\{[0-9]+(?:,[0-9]*)?\}$", atom)
            return kept + (f"{atom[: count.start()]}{{{_FEW}}}" if count else "")
        kept += atom
    return kept


def _atoms(pattern: str) -> list[str]:
    """A pattern's characters, classes and groups, each with its repeat."""
    atoms = []
    at = 0
    while at < len(pattern):
        end = _end_of_atom(pattern, at)
        count = _COUNT.match(pattern, end)
        end = count.end() if count else end
        atoms.append(pattern[at:end])
        at = end
    return atoms


def _end_of_atom(pattern: str, at: int) -> int:
    if pattern[at] == "\\":
        return at + 2
    if pattern[at] == "[":
        return pattern.index("]", at) + 1
    depth = 0
    while True:
        depth += {"(": 1, ")": -1}.get(pattern[at], 0)
        at += 1
        if depth == 0:
            return at


# Its first part has no mark that would tell it from a word, so the whole of it is looked for.
_ANCHORS = {"discord_token": r"\b[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]"}
DETECTORS = tuple(
    Detector(
        name=name,
        profile=SECRETS,
        anchor=_ANCHORS.get(name) or _beginning(shape, edge=name not in _LEADS),
        starts=starts,
        inspect=_inspector(name),
        shape=shape,
    )
    for name, starts, shape in _SHAPES
)
