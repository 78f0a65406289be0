"""A process that runs `osteoflow` commands as forks of itself: what each would import is read once, for all of them.

It reads one JSON object a line, {"words", "out", "err"}, and answers each with the exit code of the command. The server
of Prefect is started once, as it is beside `osteoflow serve`.
"""

from __future__ import annotations

import json
import os
import sys

from flows.environment import prepare


def run(words: list[str], out: str, err: str) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        for path, number in ((out, 1), (err, 2)):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, number)
        sys.argv = ["osteoflow", *words]
        from flows.cli import main

        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - what a command dies of belongs in its standard error
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    prepare()
    from prefect.server.api.server import SubprocessASGIServer

    import flows.cli
    import flows.erase
    import flows.facts
    import flows.promote
    import flows.retrain
    import flows.tracking
    import flows.verify  # noqa: F401

    server = SubprocessASGIServer()
    server.start(timeout=300)
    os.environ["PREFECT_API_URL"] = server.api_url
    print("ready", flush=True)
    try:
        for line in sys.stdin:
            print(run(**json.loads(line)), flush=True)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
