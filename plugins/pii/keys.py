"""Keys whose providers gave them a form of their own, most by a prefix. Each row: what the key starts with, which the
gate looks for, and the rest. A row must not match what is no secret (`pk_live_…`, account ids, request ids).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from plugins.pii.findings import Finding
from plugins.pii.words import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

_B64 = "[A-Za-z0-9+/]"
_URL64 = "[A-Za-z0-9_-]"
_HEX = "[a-fA-F0-9]"
_ALNUM = "[A-Za-z0-9]"

_FORMS = (
    # models
    ("sk-", rf"{_URL64}{{20,250}}"),  # OpenAI, Anthropic, DeepSeek, OpenRouter, LiteLLM, ...
    ("gsk_", rf"{_ALNUM}{{40,64}}"),  # Groq
    ("xai-", rf"{_ALNUM}{{60,100}}"),
    ("hf_", rf"{_ALNUM}{{30,44}}"),
    ("api_org_", "[A-Za-z]{30,40}"),  # Hugging Face, organisations
    ("r8_", rf"{_ALNUM}{{37}}"),  # Replicate
    ("pplx-", rf"{_ALNUM}{{40,64}}"),
    ("pcsk_", rf"{_URL64}{{40,90}}"),  # Pinecone
    ("lsv2_", rf"(?:pt|sk)_{_HEX}{{32}}_{_HEX}{{10}}"),  # LangSmith
    ("tgp_v1_", rf"{_URL64}{{40,60}}"),  # Together
    ("weir-", rf"{_URL64}{{32,64}}"),
    # clouds
    ("A3T", "[A-Z0-9]{17}"),
    ("(?:AKIA|ASIA|ABIA|ACCA)", "[A-Z0-9]{16}"),  # AWS
    ("ABSK", rf"{_B64}{{100,270}}={{0,2}}"),  # AWS Bedrock
    ("AIza", rf"{_URL64}{{35}}"),  # Google
    (r"ya29\.", rf"{_URL64}{{20,500}}"),
    ("GOCSPX-", rf"{_URL64}{{28}}"),
    ("1//0", rf"{_URL64}{{40,120}}"),
    ("LTAI", rf"{_ALNUM}{{12,24}}"),  # Alibaba
    ("AKID", rf"{_ALNUM}{{32}}"),  # Tencent
    ("AQVN", rf"{_URL64}{{35,38}}"),  # Yandex
    (r"t1\.", rf"{_URL64}+={{0,2}}\.{_URL64}{{86}}={{0,2}}"),
    ("YC[AMNP]", rf"{_URL64}{{36,38}}"),
    ("do[oprt]_v1_", rf"{_HEX}{{64}}"),  # DigitalOcean
    ("dapi", rf"{_HEX}{{32}}(?:-[0-9])?"),  # Databricks
    ("HRKU-", rf"{_URL64}{{36,64}}"),  # Heroku
    (r"v1\.0-", rf"{_HEX}{{24}}-{_HEX}{{146}}"),  # Cloudflare
    ("fo1_", rf"{_URL64}{{43}}"),  # Fly.io
    ("fm[12][ar]?_", rf"{_B64}{{100,800}}={{0,3}}"),
    ("nfp_", rf"{_ALNUM}{{36,40}}"),  # Netlify
    ("sbp_", rf"{_HEX}{{40}}"),  # Supabase
    ("sb_secret_", rf"{_URL64}{{20,60}}"),
    ("pscale_(?:tkn|oauth|pw)_", r"[A-Za-z0-9=_.-]{32,64}"),  # PlanetScale
    ("pul-", rf"{_HEX}{{40}}"),  # Pulumi
    ("tskey-", r"(?:[a-z]{2,10}-)?[A-Za-z0-9]{8,40}-[A-Za-z0-9]{16,50}"),  # Tailscale
    (r"hv[sbr]\.", rf"{_URL64}{{24,300}}"),  # Vault
    (r"dp\.(?:pt|st|ct|sa|scim|audit)\.", r"[A-Za-z0-9._-]{40,60}"),  # Doppler
    ("AGE-SECRET-KEY-1", "[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    ("A3-", r"[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})-(?:[A-Z0-9]{5}-){2}[A-Z0-9]{5}"),  # 1Password
    ("ops_ey", rf"{_B64}{{250,}}={{0,3}}"),
    ("ico-", rf"{_ALNUM}{{32}}"),  # Infracost
    ("sha256~", rf"{_URL64}{{43}}"),  # OpenShift
    (r"dt0[a-z][0-9]{2}\.", rf"{_ALNUM}{{24}}\.{_ALNUM}{{64}}"),  # Dynatrace
    # code
    ("gh[opsur]_", rf"{_ALNUM}{{36,255}}"),
    ("github_pat_", "[A-Za-z0-9_]{22,255}"),
    ("gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|oas|soat|ffct)-", r"[A-Za-z0-9_.-]{20,80}"),
    ("GR1348941", rf"{_URL64}{{20}}"),  # GitLab runners
    ("npm_", rf"{_ALNUM}{{36}}"),
    ("pypi-", rf"{_URL64}{{50,1000}}"),
    ("rubygems_", rf"{_HEX}{{48}}"),
    ("(?i:clojars_)", rf"{_ALNUM}{{60}}"),
    ("oy2", "[a-z0-9]{43}"),  # NuGet
    ("dckr_(?:pat|oat)_", rf"{_URL64}{{27,40}}"),
    ("AKCp", rf"{_ALNUM}{{60,72}}"),  # Artifactory
    ("cmVmd", rf"{_ALNUM}{{59}}"),
    ("ATATT3", r"[A-Za-z0-9_=-]{50,220}"),  # Atlassian
    ("ATCTT3", r"[A-Za-z0-9_=-]{50,220}"),
    ("sntrys_", rf"{_B64}{{40,}}={{0,2}}(?:_{_B64}{{20,60}})?"),  # Sentry
    ("sntryu_", rf"{_HEX}{{64}}"),
    ("glc_", rf"{_B64}{{32,400}}={{0,3}}"),  # Grafana
    ("glsa_", rf"{_ALNUM}{{32}}_{_HEX}{{8}}"),
    ("eyJrIjoi", rf"{_ALNUM}{{60,400}}={{0,3}}"),
    ("sq[pua]_", rf"{_URL64}{{40}}"),  # SonarQube
    ("sgp_", rf"(?:(?:{_HEX}{{16}}|local)_)?{_HEX}{{40}}"),  # Sourcegraph
    ("PMAK-", rf"{_HEX}{{24}}-{_HEX}{{34}}"),  # Postman
    ("NRAK-", "(?i:[a-z0-9]{27})"),  # New Relic
    ("NRJS-", rf"{_HEX}{{19}}"),
    ("NRII-", rf"{_URL64}{{32}}"),
    ("API-", "[A-Z0-9]{25,32}"),  # Octopus Deploy
    ("lin_(?:api|oauth)_", rf"{_ALNUM}{{32,64}}"),  # Linear
    ("ntn_", rf"{_ALNUM}{{43,50}}"),  # Notion
    ("secret_", rf"{_ALNUM}{{43}}"),
    ("pnu_", rf"{_ALNUM}{{36}}"),  # Prefect
    ("rdme_", "[a-z0-9]{70}"),  # ReadMe
    ("figd_", rf"{_URL64}{{36,60}}"),
    ("CFPAT-", rf"{_URL64}{{43}}"),  # Contentful
    ("p8e-", "(?i:[a-z0-9]{32})"),  # Adobe
    ("dnkey-", r"(?i:[a-z0-9=_-]{26}-[a-z0-9=_-]{52})"),
    ("fio-u-", r"(?i:[a-z0-9=_-]{64})"),  # Frame.io
    ("(?:pat|sat)\\.", rf"{_URL64}{{22}}\.{_HEX}{{24}}\.{_ALNUM}{{20}}"),  # Harness
    ("pat", rf"{_ALNUM}{{14}}\.{_HEX}{{64}}"),  # Airtable
    ("tk-us-", rf"{_URL64}{{48}}"),  # Scalingo
    ("sm_[aps]at_", rf"{_ALNUM}{{16}}"),  # SettleMint
    ("tfp_", r"[A-Za-z0-9_.=-]{40,70}"),  # Typeform
    ("s-s4t2(?:ud|af)-", rf"{_HEX}{{64}}"),
    # mail, chat, payments, shops
    ("xox[a-z]-", r"[A-Za-z0-9-]{10,250}"),  # Slack
    (r"xoxe\.xox[bp]-", r"[A-Za-z0-9-]{20,250}"),
    ("xapp-", r"[0-9]-[A-Za-z0-9]+-[0-9]+-[A-Za-z0-9]{10,100}"),
    (r"SG\.", r"[A-Za-z0-9_=-]{16,32}\.[A-Za-z0-9_=-]{16,64}"),  # SendGrid
    ("xkeysib-", rf"{_HEX}{{64}}-{_ALNUM}{{16}}"),  # Brevo
    ("(?:pub)?key-", rf"{_HEX}{{32}}"),  # Mailgun
    ("SK", "[0-9a-fA-F]{32}"),  # Twilio
    ("[sr]k_(?:live|test|prod)_", rf"{_ALNUM}{{10,250}}"),  # Stripe, Clerk
    ("whsec_", rf"{_B64}{{24,64}}={{0,2}}"),
    ("sq0[a-z]{3}-", rf"{_URL64}{{22,43}}"),  # Square
    ("EAAA", rf"{_URL64}{{60}}"),
    ("EAA[MC]", rf"{_ALNUM}{{60,250}}"),  # Facebook
    ("shp(?:at|ca|pa|ss|tka)_", rf"{_HEX}{{32}}"),  # Shopify
    ("FLW(?:SEC|PUB)K(?:_TEST)?-", rf"{_HEX}{{32}}-X"),  # Flutterwave
    ("FLWSECK_TEST", rf"{_HEX}{{12}}"),
    ("shippo_(?:live|test)_", rf"{_HEX}{{40}}"),
    ("duffel_(?:test|live)_", r"[A-Za-z0-9_=-]{43}"),
    ("EZ[AT]K", rf"{_ALNUM}{{54}}"),  # EasyPost
    ("(?:live|test)_(?:pub_)?", r"[a-f0-9]{31,35}"),  # Lob
    (r"access_token\$(?:production|sandbox)\$", rf"{_ALNUM}{{16}}\${_HEX}{{32}}"),  # Braintree
    (r"(?:sk|pk)\.ey", rf"{_ALNUM}{{58,120}}\.{_URL64}{{22}}"),  # Mapbox
    ("(?:authress|sc|ext)_", r"[a-z0-9]{5,30}\.[a-z0-9]{4,6}\.acc[_-][a-z0-9-]{10,32}\.[A-Za-z0-9+/_=-]{30,120}"),
    ("4b1d", rf"{_ALNUM}{{38}}"),  # ClickHouse
    # tokens of a form that many issue
    ("ey[A-Za-z0-9]", rf"{_URL64}{{15,}}\.ey{_URL64}{{15,}}\.{_URL64}{{10,}}"),  # JWT
    ("ZXlK", rf"{_B64}{{80,}}={{0,2}}"),  # JWT, in base64 once more
)  # fmt: skip

_ANCHORED = (
    # What identifies these lies within them; rows as above, with the gate's pattern first.
    (r"[0-9]:A", rf"[0-9]{{6,16}}:A{_URL64}{{34}}"),  # Telegram
    (r"[A-Za-z0-9_-]\.[A-Za-z0-9_-]{6}\.", rf"[MNO]{_URL64}{{23,27}}\.{_URL64}{{6}}\.{_URL64}{{27,40}}"),  # Discord
    (r"[0-9]Q~", r"[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}"),  # Azure AD
    (r"\.atlasv1\.", rf"{_ALNUM}{{14}}\.atlasv1\.[A-Za-z0-9_=-]{{60,70}}"),  # Terraform
    (r"[a-f0-9]-us[0-9]", r"[a-f0-9]{32}-us[0-9]{1,2}"),  # Mailchimp
    (r"_mmk", rf"{_ALNUM}{{6}}_{_ALNUM}{{29}}_mmk"),  # MaxMind
    (r"[a-f0-9]-[a-f0-9]{8}-[a-f0-9]{8}", r"[a-f0-9]{32}-[a-f0-9]{8}-[a-f0-9]{8}"),  # Mailgun
    (r"hooks\.slack\.com/", r"(?:https://)?hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{30,80}"),
    (r"/api/webhooks/", rf"(?:https://)?(?:[a-z]+\.)?discord(?:app)?\.com/api/webhooks/[0-9]{{10,25}}/{_URL64}{{40,100}}"),
    (r"\.webhook\.office\.com/", r"https://[a-z0-9]+\.webhook\.office\.com/webhookb2/[A-Za-z0-9@/_-]{40,250}"),
)  # fmt: skip

_FIRST_RUN = re.compile(r"(\[[^\]]+\])\{([0-9]+)")


def _start(prefix: str, rest: str) -> str:
    """What the gate looks for: the prefix and so much behind it that no common word is taken for a key."""
    run = _FIRST_RUN.match(rest)
    if run is None:
        return f"{prefix}[A-Za-z0-9_.+/=$-]{{10}}"
    return f"{prefix}{run[1]}{{{min(int(run[2]), 16)}}}"


GATE = r"(?:^|[^A-Za-z0-9_]|\\[nrt])(?:" + "|".join(_start(*form) for form in _FORMS) + ")"
GATE_WITHIN = "|".join([gate for gate, _ in _ANCHORED] + ["[?&]sig=[A-Za-z0-9%]{8}"])

_KEYS = re.compile(
    r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrt])|(?<=[=:]-)|(?<=--))(?:"
    + "|".join([f"{prefix}{rest}" for prefix, rest in _FORMS] + [whole for _, whole in _ANCHORED])
    + r")(?![A-Za-z0-9_])"
)
_SIGNATURE = re.compile(r"(?<=[?&]sig=)[A-Za-z0-9%/+]{40,100}={0,2}")  # Azure's shared access signatures
_LONG = re.compile(r"[A-Za-z0-9_.~:/+=%&?$@-]{19,}")  # so few words are that long that looking twice is cheap
_WORDS_ONLY = re.compile(r"[a-z_-]+")


def keys(text: str, start: int, end: int) -> Iterator[Finding]:
    for long in _LONG.finditer(text, start, end):
        for pattern in (_KEYS, _SIGNATURE):
            for match in pattern.finditer(text, *long.span()):
                if not plain(match[0]) and not _WORDS_ONLY.fullmatch(match[0]):
                    yield Finding(match.start(), match.start() + len(match[0].rstrip(".")), "secret")
