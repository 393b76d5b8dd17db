"""The Spanish catalogue of the reference mail, written as the .mo file that msgfmt would make of it.

Half of the reference messages are in Spanish, so edx-ace looks its texts up as it does on a translated site.
"""
import struct
from pathlib import Path

INTRODUCTION = (
    "Your courses at %(platform_name)s have new exercises this week, and people are talking them over in the forums. "
    "A few minutes today is enough to stay on track."
)
SPANISH = {
    "Go to %(platform_name)s Home Page": "Ir a la página de inicio de %(platform_name)s",
    "Sign In": "Iniciar sesión",
    "%(platform_name)s on %(network)s": "%(platform_name)s en %(network)s",
    "Download the iOS app on the Apple Store": "Descargar la aplicación iOS en la Apple Store",
    "Download the Android app on the Google Play Store": "Descargar la aplicación Android en Google Play",
    "Unsubscribe from these emails.": "Cancelar la suscripción a estos correos.",
    "All rights reserved": "Todos los derechos reservados",
    "Our mailing address is": "Nuestra dirección postal es",
    "Keep learning now": "Siga aprendiendo ahora",
    "Start learning now": "Empiece a aprender ahora",
    INTRODUCTION: "Sus cursos en %(platform_name)s tienen nuevos ejercicios esta semana y la gente los comenta en los foros. "
    "Bastan unos minutos hoy para no perder el ritmo.",
    "Hello %(name)s, keep learning": "Hola %(name)s, siga aprendiendo",
    "You are in the verified track: finish the graded work to earn your certificate.": "Está en la modalidad verificada: "
    "termine el trabajo calificado para obtener su certificado.",
    "Upgrade by the deadline to earn a verified certificate.": "Cambie de modalidad antes de la fecha límite para obtener "
    "un certificado verificado.",
    "You have completed %(done)s of %(total)s sections.": "Ha completado %(done)s de %(total)s secciones.",
    "Next due date: %(when)s": "Próxima fecha de entrega: %(when)s",
    "Keep learning on %(platform_name)s": "Siga aprendiendo en %(platform_name)s",
    "Keep learning on %(platform_name)s: %(n)s courses are waiting": "Siga aprendiendo en %(platform_name)s: %(n)s cursos le esperan",
}
HEADER = "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=(n != 1);\n"


def mo_bytes(texts):
    """GNU gettext's binary form: header, table of originals, table of translations, then both sorts of strings."""
    pairs = sorted((original.encode(), translated.encode()) for original, translated in (texts | {"": HEADER}).items())
    tables = 28
    strings = tables + 16 * len(pairs)
    originals = b"".join(original + b"\0" for original, _ in pairs)
    out = struct.pack("<7I", 0x950412DE, 0, len(pairs), tables, tables + 8 * len(pairs), 0, 0)
    for side, at in ((0, strings), (1, strings + len(originals))):
        for pair in pairs:
            out += struct.pack("<2I", len(pair[side]), at)
            at += len(pair[side]) + 1
    return out + originals + b"".join(translated + b"\0" for _, translated in pairs)


def write(folder):
    """Writes the catalogue where Django looks in a folder of LOCALE_PATHS."""
    path = Path(folder) / "es" / "LC_MESSAGES" / "django.mo"
    path.parent.mkdir(parents=True)
    path.write_bytes(mo_bytes(SPANISH))
