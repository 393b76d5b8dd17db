"""Django as a site in production has it: templates cached, translation on."""
import os

SECRET_KEY = "not a secret: nothing is signed here"
DEBUG = False  # with it Django caches compiled templates
USE_I18N = True
USE_TZ = True
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("es", "Spanish")]
LOCALE_PATHS = [os.environ["PEER_LOCALE"]]
INSTALLED_APPS = ["edx_ace", "probeapp"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {}}]
EMAIL_BACKEND = f"django.core.mail.backends.{os.environ['PEER_BACKEND']}.EmailBackend"
EMAIL_HOST = "127.0.0.1"
EMAIL_PORT = int(os.environ["PEER_SMTP_PORT"])
DEFAULT_FROM_EMAIL = "Example Learning <no-reply@example.org>"
OPENEDX_TELEMETRY = []
ACE_ENABLED_CHANNELS = ["django_email"]
ACE_ENABLED_POLICIES = ["bulk_email_optout", "deny_push"]
ACE_CHANNEL_DEFAULT_EMAIL = "django_email"
ACE_CHANNEL_TRANSACTIONAL_EMAIL = "django_email"
