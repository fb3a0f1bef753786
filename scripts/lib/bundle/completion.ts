import { type Flag, flagsOf, type Help, type Item, wordsOf } from './help.ts'

// Completion for bash, zsh and fish: static files, made of the option tables in `--help`. In bash
// and zsh one function per command does it, from the same lines: what may follow which words.

/** What may follow an option: a file, a folder, one of a few words, or anything at all. */
function whatFollows({ value, choices }: Flag): string {
  if (choices.length > 0) return choices.join(' ')
  return value === 'FILE' ? '@file' : value === 'DIR' ? '@dir' : ''
}

function long(flags: Flag[]): string[] {
  return [...new Set(flags.flatMap(({ names }) => names.filter((name) => name.startsWith('--'))))]
}

function functionOf(command: string): string {
  return `_${command.replaceAll('-', '_')}`
}

/** The branches of a shell's `case`: the words of a command, then its options, then their values. */
function branches(help: Help): string {
  const flags = flagsOf(help)
  const words = [...wordsOf(help)].map(([after, items]) => {
    return `    '${after}') words='${items.map(({ tag }) => tag).join(' ')}' ;;`
  })
  const sides = [...new Set(flags.map(({ side }) => side).filter(Boolean))]
  const common = long(flags.filter(({ side }) => side === '')).join(' ')
  const options = sides.map((side) => {
    const own = long(flags.filter((flag) => flag.side === side)).join(' ')
    return `    '${side}'*) options='${own} ${common}' ;;`
  })
  // The same option has the same values on every side that has it.
  const values = new Map(
    flags.flatMap((flag) => {
      const value = flag.value && (whatFollows(flag) || '@any')
      return value ? flag.names.map((name): [string, string] => [name, value]) : []
    }),
  )
  const cases = [...values].map(([name, value]) => `    ${name}) value='${value}' ;;`)
  return `  case $said in
${words.join('\n') || "    '') ;;"}
  esac
  case $said in
${[...options, `    *) options='${common}' ;;`].join('\n')}
  esac
  case $before in
${cases.join('\n')}
  esac`
}

/** The file for /usr/share/bash-completion/completions. */
export function bash(all: readonly Help[]): string {
  const parts = all.map((help) => {
    return `${functionOf(help.command)}() {
  local words= options= value= said before
  _fail2ban_perimeter_said
${branches(help)}
  _fail2ban_perimeter_reply
}
complete -F ${functionOf(help.command)} ${help.command}
`
  })
  return `# bash completion for fail2ban-perimeter, made from what --help says.

# What was said before the word at the cursor: the words that are no options, and the last word.
_fail2ban_perimeter_said() {
  local word skip=
  before=\${COMP_WORDS[COMP_CWORD - 1]}
  said=
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case $word in
      -*) skip=$word ;;
      *) [[ $skip ]] || said+="\${said:+ }$word" ;;
    esac
  done
}

_fail2ban_perimeter_reply() {
  local word=\${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=()
  case $value in
    @file) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    @dir) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$word") ;;
    @any) ;;
    ?*) mapfile -t COMPREPLY < <(compgen -W "$value" -- "$word") ;;
    *)
      [[ $word == -* || ! $words ]] && words+=" $options"
      mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
      ;;
  esac
}

${parts.join('\n')}`
}

/** The file for a folder in zsh's fpath. */
export function zsh(all: readonly Help[]): string {
  const parts = all.map(
    (help) => `${functionOf(help.command)}() {
${branches(help)}
}
`,
  )
  const cases = all.map(({ command }) => `  ${command}) ${functionOf(command)} ;;`)
  return `#compdef ${all.map(({ command }) => command).join(' ')}
# zsh completion for fail2ban-perimeter, made from what --help says.

${parts.join('\n')}
local words_ options value said before skip= word
before=\${words[CURRENT-1]}
said=
for word in \${words[2,CURRENT-1]}; do
  case $word in
    -*) skip=1 ;;
    *) [[ -n $skip ]] || said+="\${said:+ }$word" ;;
  esac
done
case $service in
${cases.join('\n')}
esac
case $value in
  @file) _files ;;
  @dir) _files -/ ;;
  @any) ;;
  ?*) compadd -- \${=value} ;;
  *)
    [[ $PREFIX == -* || -z $words_ ]] && words_+=" $options"
    compadd -- \${=words_}
    ;;
esac
`.replaceAll("words='", "words_='")
}

const quoted = (text: string): string => `'${text.replace(/\\/g, '\\\\').replace(/'/g, "\\'")}'`

/** The first words of what an option or a verb is for. */
function hint(text: string): string {
  return quoted(text.replace(/\s+/g, ' ').slice(0, 60))
}

/** The file for fish's vendor_completions.d. */
export function fish(all: readonly Help[]): string {
  const lines = all.flatMap((help) => {
    const { command } = help
    const verbs = [...wordsOf(help)].flatMap(([after, items]) => verbLines(command, after, items))
    return [
      `complete -c ${command} -f`,
      ...verbs,
      ...flagsOf(help).flatMap((flag) => flagLines(command, flag)),
    ]
  })
  return `# fish completion for fail2ban-perimeter, made from what --help says.\n${lines.join('\n')}\n`
}

function verbLines(command: string, after: string, items: readonly Item[]): string[] {
  const known = items.map(({ tag }) => tag).join(' ')
  const last = after === '' ? 'not ' : `__fish_seen_subcommand_from ${after}; and not `
  return items.map(({ tag, text }) => {
    return `complete -c ${command} -n ${quoted(`${last}__fish_seen_subcommand_from ${known}`)} -a ${tag}${text && ` -d ${hint(text)}`}`
  })
}

function flagLines(command: string, flag: Flag): string[] {
  const seen = flag.side.split(' ').map((word) => `__fish_seen_subcommand_from ${word}`)
  const where = flag.side ? ` -n ${quoted(seen.join('; and '))}` : ''
  const value = whatFollows(flag)
  const takes = !flag.value
    ? ''
    : value === '@file'
      ? ' -rF'
      : value === '@dir'
        ? " -xa '(__fish_complete_directories)'"
        : value
          ? ` -xa ${quoted(value)}`
          : ' -x'
  const short = flag.names.find((name) => /^-\w$/.test(name))
  const names = flag.names.filter((name) => name.startsWith('--'))
  return names.map((name, i) => {
    const also = short && i === 0 ? ` -s ${short.slice(1)}` : ''
    return `complete -c ${command}${where}${also} -l ${name.slice(2)}${takes} -d ${hint(flag.text)}`
  })
}
