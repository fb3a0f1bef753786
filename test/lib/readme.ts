import { readFileSync } from 'node:fs'

/** What somebody is told to type or to write into a file. */
export interface Block {
  /** Of its section. */
  heading: string
  /** `sh`, `ini`, `yaml`; nothing for what is only shown. */
  language: string
  text: string
}

/** The fenced blocks of README.md, in order. */
export function readmeBlocks(): Block[] {
  const sections = readFileSync('README.md', 'utf8').split(/^## /m)
  return sections.flatMap((section) => {
    const [heading = ''] = section.split('\n', 1)
    return [...section.matchAll(/^```(\w*)\n(.*?)^```$/gms)].map(
      ([, language = '', text = '']) => ({
        heading,
        language,
        text,
      }),
    )
  })
}

/** Those of one section. @throws Error if it has another number of them */
export function blocksOf(heading: string, count: number): string[] {
  const texts = readmeBlocks().filter((block) => block.heading === heading)
  if (texts.length !== count) throw new Error(`README.md: ${texts.length} blocks in "${heading}"`)
  return texts.map(({ text }) => text)
}

/** A block of shell, a command each. */
export function linesOf(block: string): string[] {
  return block.trimEnd().split('\n')
}
