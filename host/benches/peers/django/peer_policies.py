"""Two policies of the shape Open edX uses; the opt-outs are kept in memory, which favours edx-ace (there they are a query)."""
from edx_ace.channel import ChannelType
from edx_ace.policy import Policy, PolicyResult

OPTOUTS = {(str(user), f"course-v1:Org{user % 7}+C{user % 11}+2026") for user in range(0, 100_000, 50)}


class BulkEmailOptout(Policy):
    """Denies e-mail to whoever opted out of all the courses a message is about."""

    def check(self, message):
        course_ids = message.context.get("course_ids")
        if not course_ids or message.options.get("transactional"):
            return PolicyResult(deny=set())
        user = str(message.recipient.lms_user_id)
        if all((user, course) in OPTOUTS for course in course_ids):
            return PolicyResult(deny={ChannelType.EMAIL})
        return PolicyResult(deny=set())


class DenyPush(Policy):
    def check(self, message):
        return PolicyResult(deny={ChannelType.PUSH})
