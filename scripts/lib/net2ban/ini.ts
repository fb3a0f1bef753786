// The subset of Python's configparser that Fail2Ban reads its files with, in the words of CPython's
// own documentation. No library on npm has it: `ini` and `js-ini` know no continued lines, and
// `configparser` neither inline `;` remarks nor Fail2Ban's `%(section/option)s`.

/** Options by section; `DEFAULT` holds what stands in for a missing option. Names are as Python's. */
export type Sections = Map<string, Map<string, string>>

export const DEFAULT = 'DEFAULT'

/** How deep `%(...)s` may lead from one option to the next. */
const DEPTH = 10

/**
 * Reads one file. An option's name ends at the first `=` or `:` and is made lower case; a line that
 * is indented deeper continues the value, blank ones included; ` ;` begins a remark anywhere, `#`
 * only at the beginning of a line.
 *
 * @throws Error that says which line Python would refuse
 */
export function parseIni(text: string): Sections {
  const sections: Sections = new Map()
  let section: Map<string, string> | undefined
  let option: string | undefined
  let indent = 0
  const append = (value: string): void => {
    if (section && option !== undefined) section.set(option, `${section.get(option)}\n${value}`)
  }
  for (const [i, line] of text.split(/\r\n|\r|\n/).entries()) {
    const { value, remark } = withoutRemark(line)
    const depth = line.search(/\S/)
    if (value === '') {
      if (!remark) append('')
    } else if (option !== undefined && depth > indent) {
      append(value)
    } else {
      indent = depth
      const header = /^\[(.+)\]/.exec(value)?.[1]
      option = header === undefined ? addOption(section, value, i + 1) : undefined
      if (header !== undefined) section = addSection(sections, header, i + 1)
    }
  }
  for (const options of sections.values()) {
    for (const [name, value] of options) options.set(name, value.trimEnd())
  }
  return sections
}

/**
 * An option's value with every `%(...)s` filled in.
 *
 * @param vars what goes before the section's own options
 * @returns undefined if there is no such option
 * @throws Error for a reference that leads nowhere or in a circle, and for a single `%`
 */
export function readOption(
  sections: Sections,
  section: string,
  option: string,
  vars: ReadonlyMap<string, string> = new Map(),
): string | undefined {
  const own = sections.get(section)
  if (!own) return undefined
  const maps = [vars, own, sections.get(DEFAULT)]
  const find = (name: string): string | undefined => {
    for (const map of maps) {
      const value = map?.get(name)
      if (value !== undefined) return value
    }
    return undefined
  }
  const look = (name: string): string | undefined => {
    if (name === '__name__') return section
    return find(name) ?? (name.includes('/') ? elsewhere(sections, section, name) : undefined)
  }
  const raw = find(option.toLowerCase())
  return raw === undefined ? undefined : interpolate(raw, look, option, 1)
}

function interpolate(
  text: string,
  look: (name: string) => string | undefined,
  option: string,
  depth: number,
): string {
  if (depth > DEPTH) throw new Error(`option "${option}" leads in a circle`)
  return text.replace(/%(?:(%)|\(([^)]+)\)s)?/g, (_, percent?: string, name?: string) => {
    if (percent) return '%'
    if (name === undefined) throw new Error(`option "${option}" has a single "%"`)
    const value = look(name.toLowerCase())
    if (value === undefined) throw new Error(`option "${option}" refers to no option "${name}"`)
    return interpolate(value, look, option, depth + 1)
  })
}

/** `known/x` is what x was before the last file changed it; `section/x` is another section's x. */
function elsewhere(sections: Sections, section: string, name: string): string | undefined {
  const slash = name.indexOf('/')
  const [where, option] = [name.slice(0, slash), name.slice(slash + 1)]
  const other = where === 'known' ? `KNOWN/${section}` : where
  if (where !== 'default' && where !== 'known' && !sections.has(other)) return undefined
  return sections.get(other)?.get(option) ?? sections.get(DEFAULT)?.get(option)
}

function withoutRemark(line: string): { value: string; remark: boolean } {
  const whole = /^\s*[#;]/.test(line)
  const at = whole ? 0 : line.search(/(?<=^|\s);/)
  return { value: (at < 0 ? line : line.slice(0, at)).trim(), remark: at >= 0 }
}

function addSection(sections: Sections, name: string, line: number): Map<string, string> {
  const known = sections.get(name)
  if (known && name !== DEFAULT) throw new Error(`line ${line}: section "${name}" is there twice`)
  const section = known ?? new Map<string, string>()
  sections.set(name, section)
  return section
}

function addOption(section: Map<string, string> | undefined, text: string, line: number): string {
  if (!section) throw new Error(`line ${line}: no section begins before it`)
  const [, name = '', value = ''] = /^(.*?)\s*[=:]\s*(.*)$/.exec(text) ?? []
  if (name === '') throw new Error(`line ${line}: neither a section nor an option`)
  const option = name.trimEnd().toLowerCase()
  if (section.has(option)) throw new Error(`line ${line}: option "${option}" is there twice`)
  section.set(option, value.trim())
  return option
}
