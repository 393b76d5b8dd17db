#!/usr/bin/env python3
"""Writes the 64 messages of the reference mail as NDJSON in edx-ace's JSON form.

    contexts.py OUT.ndjson

They are the same at every run, so that two engines can be compared byte by byte.
"""
import json
import sys
import uuid

NAMES = [
    "Introduction to Algorithms & Data Structures",
    "Shakespeare's Life and Work",
    "Linear Algebra – Foundations to Frontiers",
    "Circuits and Electronics 1: Basic Circuit Analysis",
    "Justice",
]
NETWORKS = ["Facebook", "Twitter", "LinkedIn", "Reddit"]
SEND = uuid.uuid5(uuid.NAMESPACE_URL, "https://www.example.org/recurringnudge")


def course(user, i):
    key = f"course-v1:Org{i}+C{i}+2026"
    return {
        "id": key,
        "name": NAMES[i],
        "org": f"Org{i}",
        "run": "2026",
        "done": (user + i) % 12,
        "total": 12,
        "deadline": f"March {i + 1}, 2026" if (user + i) % 3 else "",
        "started": bool((user + i) % 2),
        "url": f"https://learning.example.org/course/{key}/home",
    }


def context(user):
    courses = [course(user, i) for i in range(5)]
    return {
        "language": "es" if user % 2 else "en",
        "text_dir": "ltr",
        "platform_name": "Example Learning",
        "homepage_url": "https://www.example.org/",
        "dashboard_url": "https://www.example.org/dashboard",
        "logo_url": "https://static.example.org/logo.png",
        "social_links": [
            {
                "name": n,
                "url": f"https://{n.lower()}.example.com/examplelearning",
                "icon": f"https://static.example.org/{n.lower()}.png",
            }
            for n in NETWORKS
        ],
        "mobile_store_urls": {
            "apple": "https://apps.example.com/ios",
            "google": "https://apps.example.com/android",
        },
        "unsubscribe_link": f"https://www.example.org/unsub/{user:032x}?a=1&b=2",
        "unsubscribe_text": "Unsubscribe",
        "preferences_url": f"https://www.example.org/account/settings?user={user}&tab=notifications",
        "year": "2026",
        "contact_mailing_address": "1 Example Street, Cambridge MA 02139",
        "tracking_pixel_url": f"https://t.example.org/p?u={user}&m=nudge",
        "campaign": "recurringnudge",
        "utm_source": "ace",
        "course_count": len(courses),
        "user": {"full_name": f"Zoë O'Neil {user}", "is_verified": bool(user % 3)},
        "course_ids": [c["id"] for c in courses],
        "courses": courses,
    }


def message(user):
    values = context(user)
    return {
        "app_label": "probeapp",
        "name": "recurringnudge",
        "recipient": {"lms_user_id": user, "email_address": f"user{user}@example.org"},
        "expiration_time": None,
        "context": values,
        "uuid": str(uuid.uuid5(SEND, str(user))),
        "send_uuid": str(SEND),
        "options": {},
        "headers": {"List-Unsubscribe": f"<{values['unsubscribe_link']}>"},
        "language": values["language"],
        "log_level": None,
    }


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        for user in range(64):
            out.write(json.dumps(message(user)) + "\n")


if __name__ == "__main__":
    main()
