import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { temporaryFolder } from './folder.ts'

/** An `ssh` that plays sshd and gate, and writes down what each firewall is told. */
export interface StandInSsh {
  /** Put it first on the PATH. */
  folder: string
  path: string
  /**
   * Lines of shell that a host runs for a word of the wire, a session of one line included; without
   * any it is done, silently. For `firewall`, they give all answers of a longer session.
   */
  answer(host: string, word: string, script: string): void
  /** Lines that a host has, for its scripts to read in `$at.has`. */
  has(host: string, lines: string[]): void
  /** What ssh says when it cannot connect. */
  refuse(host: string, sentence: string): void
  /** What the host was told since the last time: connects, commands, input. */
  told(host: string): string[]
}

const STAND_IN = `#!/bin/sh
while [ "$1" != -- ]; do
  case $1 in
    -S) socket=$2; shift ;;
    -O) control=$2; shift ;;
    -E) log=$2; shift ;;
    -M) master=yes ;;
    -o) shift ;;
  esac
  shift
done
at=FOLDER/$2 command=\${3-}
case \${control-} in
  check) [ -e "$socket" ]; exit ;;
  exit) rm "$socket"; echo 'close' >>"$at"; exit ;;
esac
if [ "\${master-}" ]; then
  [ ! -e "$at.refused" ] || { cat "$at.refused" >"$log"; exit 255; }
  : >"$socket"
  echo connect >>"$at"
  exit
fi
[ -e "$socket" ] || exit 255
# As the firewall does it: the answer begins with when the question was asked, by the server's clock.
case $command in *' @'*) echo "@\${command##* @}"; command=\${command% @*} ;; esac
if [ "$command" != firewall ]; then
  echo "$command" >>"$at"
else
  read -r begin
  printf '%s\\nok\\n' "@\${begin##* @}"
  input=$(cat | sed 's/ @[0-9]*$//')
  case $input in
    # What the firewall has is never known here: it has to be sent everything.
    *digest*) printf 'firewall\\ndigest\\n' >>"$at"; printf 'ffff0123\\nok\\n-\\nok\\n'; exit ;;
    # A session of one line: its script does what the word does.
    'list'* | 'blocked '* | 'ban '* | 'unban '* | flush | 'flush '*)
      echo "$input" >>"$at"
      command=$input script=$at.\${input%% *}
      [ ! -e "$script" ] || said=$( (. "$script") 2>"$at.said") && printf '%s\\nok\\n' "\${said-}" ||
        echo "error $? $(sed 's/^firewall: //' "$at.said")"
      exit ;;
  esac
  printf 'firewall\\n%s\\n' "$input" >>"$at"
fi
script=$at.\${command%% *}
[ ! -e "$script" ] || . "$script"
`

/** For the tests of this file. Give hosts names that no other test has: their sockets are shared. */
export function standInSsh(): StandInSsh {
  const folder = temporaryFolder('ssh')
  writeFileSync(`${folder}/ssh`, STAND_IN.replace('FOLDER', folder), { mode: 0o755 })
  return {
    folder,
    path: `${folder}:${process.env.PATH}`,
    answer: (host, word, script) => writeFileSync(`${folder}/${host}.${word}`, `${script}\n`),
    has(host, lines) {
      writeFileSync(`${folder}/${host}.has`, lines.map((line) => `${line}\n`).join(''))
    },
    refuse: (host, sentence) => writeFileSync(`${folder}/${host}.refused`, `${sentence}\n`),
    told(host) {
      const file = `${folder}/${host}`
      if (!existsSync(file)) return []
      const lines = readFileSync(file, 'utf8').split('\n').slice(0, -1)
      rmSync(file)
      return lines
    },
  }
}
