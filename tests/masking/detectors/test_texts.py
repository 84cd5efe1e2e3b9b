"""Addresses, accounts, tokens, keys and passwords: what is one, and what only looks like one."""

from __future__ import annotations

import base64
import json

import pytest

from interposer.masking.engine import PROFILES, Engine
from interposer.ports import Secret

engine = Engine()


def mask(text: str) -> str:
    return str(engine.mask(text, PROFILES).value)


def drawn(size: int, alphabet: str = "q8Zk2vT9wL4xN7bR3mJ6cF1hP5sD0gYa") -> str:
    """Characters that look random and are the same every time."""
    return "".join(alphabet[(i * 7 + i * i) % len(alphabet)] for i in range(size))


@pytest.mark.parametrize(
    "address",
    [
        "test@iana.org",
        "a.b+c@x.co.uk",
        "O'Hara_1@mail-host.example.com",
        "j@[192.168.2.1]",
        "ünal@posta.com.tr",
        '"a b"@iana.org',
    ],
)
def test_mail_address(address: str) -> None:
    """Local parts and domains as RFC 5321 and RFC 6531 allow them are masked whole."""
    assert mask(f"to {address}, today") == "to [REDACTED:email], today"


@pytest.mark.parametrize("text", ["user@host", "@types/node", "@app.route('/x')", "a @ b.c", "npm i @scope/pkg@1.2.3"])
def test_at_sign_alone_is_no_mail_address(text: str) -> None:
    """Handles, decorators and package names stay."""
    assert mask(text) == text


@pytest.mark.parametrize("account", ["GB29NWBK60161331926819", "DE89 3704 0044 0532 0130 00", "gb29nwbk60161331926819"])
def test_bank_account(account: str) -> None:
    """An account number with valid check digits is masked, in any writing."""
    assert mask(f"IBAN {account}.") == "IBAN [REDACTED:iban]."


@pytest.mark.parametrize("text", ["GB29NWBK60161331926818", "GB29NWBK6016133192681", "AB12CDEF12345678901234"])
def test_wrong_bank_account_stays(text: str) -> None:
    """Wrong check digits, length or country: no account number."""
    assert mask(text) == text


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("aws_access_key", "AKIA" + "Q7ZX9WV5TR3MPLK2"),
        ("github_token", "ghp_" + drawn(36)),
        ("gitlab_token", "glpat-" + drawn(20)),
        ("slack_token", "xoxb-" + "781236542736-2364535789652-" + drawn(24)),
        ("slack_webhook", "hooks.slack.com/services/" + "T016M3G1GHZ/A04J3BAF7AA/" + drawn(24)),
        ("stripe_key", "sk_live_" + drawn(24)),
        ("openai_key", "sk-proj-" + drawn(40)),
        ("anthropic_key", "sk-ant-" + "api03-" + drawn(93) + "AA"),
        ("huggingface_token", "hf_" + drawn(34)),
        ("google_api_key", "AIza" + drawn(35)),
        ("npm_token", "npm_" + drawn(36)),
        ("pypi_token", "pypi-Ag" + drawn(60)),
        ("sendgrid_key", "SG." + drawn(22) + "." + drawn(43)),
        ("vault_token", "hvs." + drawn(32)),
        ("digitalocean_token", "dop_v1_" + drawn(64, "0123456789abcdef0a1b2c3d4e5f6789")),
        ("databricks_token", "dapi" + drawn(32, "0123456789abcdef0a1b2c3d4e5f6789")),
        ("grafana_token", "glsa_" + drawn(32) + "_1778f60b"),
        ("telegram_token", "30219398:A" + drawn(34)),
        ("notion_token", "ntn_" + drawn(46)),
        ("linear_key", "lin_api_" + drawn(40)),
        ("postman_key", "PMAK-" + drawn(24, "0123456789abcdef") + "-" + drawn(34, "0123456789abcdef")),
    ],
)
def test_provider_token(name: str, token: str) -> None:
    """A token says whose it is, and is masked under that name, in prose and behind a word."""
    assert mask(f"use {token} now") == f"use [REDACTED:{name}] now"
    assert token not in mask(f'TOKEN="{token}"')


@pytest.mark.parametrize(
    "text", ["AKIA" + "X" * 16, "ghp_" + "x" * 36, "xoxb-xxxxxxxxx-xxxxxxxxxx-xxxxxxxxxxxx", "task-sk-test"]
)
def test_drawing_of_a_token_stays(text: str) -> None:
    """A token of one repeated letter is documentation."""
    assert mask(text) == text


def test_jwt_in_every_form() -> None:
    """Signed, encrypted and unsecured tokens are masked; a header alone and package names are not."""
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    claims = base64.urlsafe_b64encode(b'{"sub":"1234567890"}').decode().rstrip("=")
    for token in (
        f"{header}.{claims}.{drawn(43)}",
        f"{header}.{claims}.",
        f"{header}.{drawn(20)}.{drawn(16)}.{drawn(30)}.{drawn(22)}",
    ):
        assert mask(f"see {token}").endswith("[REDACTED:jwt]")
    for text in (header, "com.example.app", "eyJ is the usual prefix", "eye.eyeable.should be_nil"):
        assert mask(text) == text


def pem(kind: str, body: str, newline: str = "\n") -> str:
    return newline.join([f"-----BEGIN {kind}" + "PRIVATE KEY-----", body, f"-----END {kind}" + "PRIVATE KEY-----"])


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\\n", "\\\\n", " "])
@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
def test_private_key_whole(kind: str, newline: str) -> None:
    """A key in its armour is masked from heading to end, whatever its lines end with."""
    text = pem(kind, newline.join([drawn(64), drawn(40)]), newline)
    assert mask(f"key: {text} end") == "key: [REDACTED:private_key] end"


def test_private_key_cut_off() -> None:
    """A key that was cut off is masked as far as it goes."""
    text = pem("RSA ", "\n".join([drawn(64), drawn(64), drawn(30)])).split("-----END")[0]
    assert drawn(30) not in mask(text)
    assert mask(text).startswith("[REDACTED:private_key]")


def test_certificate_and_public_key_stay() -> None:
    """What is public stays."""
    text = f"-----BEGIN CERTIFICATE-----\n{drawn(64)}\n-----END CERTIFICATE-----"
    assert mask(text) == text
    assert mask("-----BEGIN PUBLIC KEY-----") == "-----BEGIN PUBLIC KEY-----"


@pytest.mark.parametrize(
    "form",
    [
        'password = "{}"', "password={}", "DB_PASSWORD={}", '"client_secret": "{}"', "api_key: '{}'", "X-Api-Key: {}",
        "Authorization: Bearer {}", "--set db.password={}", '{{"auth_token":"{}"}}', "<apiToken>{}</apiToken>",
        'setProperty("SERVICE_TOKEN", "{}")', 'token := "{}"', '"token" => "{}"', '\\"api_key\\": \\"{}\\"',
        "https://admin:{}@db.example/x", "curl -u admin:{} https://x.test", "?access_token={}&a=1",
    ],
)  # fmt: skip
def test_assigned_secret(form: str) -> None:
    """A value that looks like a secret behind a word that says so is masked, in any language's way of writing it."""
    secret = drawn(22)
    assert secret not in mask(form.format(secret))
    assert "[REDACTED:secret]" in mask(form.format(secret))


@pytest.mark.parametrize(
    "text",
    [
        "tool users.read password_reset_required=false token_count=4096 max_tokens: 8192",
        "The secret of success is to start; the password field is required.",
        "Authorization: Bearer <your token here>",
        "api_key = os.environ['API_KEY']",
        "export TOKEN=${TOKEN:?missing}",
        'password: "{{ vault_password }}"',
        "token: string, key: number",
        "keyboard: qwertz-de-1996a monkey=banana12345",
        "const token = getToken(request)",
        'author: "Jane-Roe42"',
        "password: ********",
        "https://example.com:8080/a@b",
        "primary_key=customer_id_2026x",
        '"nextPageToken": "CAUQAA2x9k3m"',
    ],
)
def test_word_for_a_secret_alone_masks_nothing(text: str) -> None:
    """Code, prose, counts, placeholders and page tokens stay."""
    assert mask(text) == text


OWN = "up$t-" + "9f3k/83kd+3md03kd93mdl29sk"


@pytest.mark.parametrize(
    "echo",
    [
        OWN, OWN.upper(), base64.b64encode(OWN.encode()).decode(), base64.b64encode(b"x" + OWN.encode()).decode(),
        base64.b64encode(b"xy" + OWN.encode()).decode(), base64.urlsafe_b64encode(f"user:{OWN}".encode()).decode(),
        OWN.encode().hex(), OWN.encode().hex().upper(), "".join(f"%{b:02X}" for b in OWN.encode()),
        "".join(f"&#{ord(ch)};" for ch in OWN), "".join(f"\\u{ord(ch):04x}" for ch in OWN),
        "".join(f"\\x{ord(ch):02x}" for ch in OWN), OWN.replace("-", "=2D").replace("$", "=24"),
        json.dumps(json.dumps({"k": OWN})), "%2524".join(OWN.split("$")),
    ],
)  # fmt: skip
def test_own_credential_in_every_encoding(echo: str) -> None:
    """A skill that echoes the broker's credential, encoded as it likes, does not leak it, whatever the profiles."""
    guarding = Engine()
    guarding.guard(Secret(OWN))
    for profiles in (frozenset[str](), PROFILES):
        masked = guarding.mask(f"it was {echo} indeed", profiles)
        assert echo[6:-6] not in str(masked.value)
        assert masked.counts.get("credential") == 1
